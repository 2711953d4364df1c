"""Outputs that sizes are measured on: all of a split, or neighbourhoods of it as records unite
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.permutation import permutation
from stockpot.stages.influence.spans import largest_entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.influence.walk import Walk
    from stockpot.stages.influence.walk_inputs import Arrays

__all__ = ["SAMPLE", "sampled_outputs"]

SAMPLE = 65_536
"""Most outputs that are looked at."""
_NEAR = 63
"""Outputs taken with one that is drawn: as many as a cluster of a record has, about."""
_AT_ONCE = 256


def sampled_outputs(
    graph: Arrays,
    walk: Walk,
    alpha: float,
    outputs: NDArray[np.int32],
    threads: int = 1,
    most: int = SAMPLE,
) -> NDArray[np.int32]:
    """All outputs where they are few, else some that are drawn, each with the outputs that
    influence it most.

    Records unite the neighbours of outputs that stand together: outputs drawn one by one would look
    too dear, and those around a hub, which a search by hops finds first, too cheap.

    Parameters
    ----------
    graph, walk, alpha : as of stage influence.
    outputs : i4[O], sorted, distinct.

    Returns
    -------
    i4[<= most], sorted
    """
    if len(outputs) <= most:
        return outputs
    starts = permutation(len(outputs), 0)
    taken = np.zeros(len(outputs), np.bool_)
    left = most
    for at in range(0, len(starts), _AT_ONCE):
        some = starts[at : at + _AT_ONCE]
        near = largest_entries(
            graph, walk, alpha, outputs, outputs[some], 1, _NEAR, threads, _unheard
        ).pair
        for start, pairs in zip(some.tolist(), near, strict=True):
            if taken[start]:
                continue
            region = np.concatenate([[start], pairs[pairs >= 0]])
            region = region[~taken[region]][:left]
            taken[region] = True
            left -= len(region)
            if not left:
                return outputs[taken]
    return outputs[taken]


def _unheard(done: int, total: int, text: str) -> None:
    """Progress that is a small part of the work."""
