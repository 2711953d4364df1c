"""A chain of records drawn by distance from given uniform numbers: the same numbers give the same
chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["draw_chain"]


@njit(cache=True, nogil=True)
def draw_chain(
    distance: NDArray[np.float64], uniform: NDArray[np.float64], before: int, last: int
) -> NDArray[np.int32]:
    """Draw all records but `last` one after another, each ~ its distance from the one before;
    `last` ends the chain.

    O(R^2).

    Parameters
    ----------
    distance : f8[R, R], positive off the diagonal
    uniform : f8[R], in [0, 1)
    before : the record before the first, or -1: then the first is drawn uniformly
    last : the record at the end

    Returns
    -------
    i4[R], a permutation
    """
    records = len(distance)
    out = np.empty(records, np.int32)
    used = np.zeros(records, np.bool_)
    used[last] = True
    at = before
    for step in range(records - 1):
        total = 0.0
        for other in range(records):
            if not used[other]:
                total += distance[at, other] if at >= 0 else 1.0
        target, chosen = uniform[step] * total, -1
        for other in range(records):
            if used[other]:
                continue
            if chosen >= 0 and target < 0.0:
                break
            chosen = other
            target -= distance[at, other] if at >= 0 else 1.0
        at = chosen
        used[at] = True
        out[step] = at
    out[records - 1] = last
    return out
