"""Outputs that sizes are measured on: all of a split, or regions of it that keep neighbours together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.influence.scramble import permutation
from stages.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SAMPLE", "sampled_outputs"]

SAMPLE = 16_384
"""Most outputs that are looked at."""
_REGIONS = 16


def sampled_outputs(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], outputs: NDArray[np.int32], most: int = SAMPLE
) -> NDArray[np.int32]:
    """All outputs where they are few, else the nearest ones around some that are drawn: i4[<= most], sorted.

    Records unite the neighbours of outputs that stand together, so outputs drawn one by one would look too dear.

    Parameters
    ----------
    indptr, indices : CSR of the graph, in which nearness is counted in hops
    outputs : i4[O], sorted, distinct
    """
    if len(outputs) <= most:
        return outputs
    wanted = np.zeros(len(indptr) - 1, np.bool_)
    wanted[outputs] = True
    starts = outputs[permutation(len(outputs), 0)]
    return np.sort(_regions(indptr, indices, wanted, starts, most, most // _REGIONS))


@njit(cache=True, nogil=True)
def _regions(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    wanted: NDArray[np.bool_],
    starts: NDArray[np.int32],
    most: int,
    region: int,
) -> NDArray[np.int32]:
    """Breadth first from one start after the other, `region` wanted nodes from each, until there are `most`."""
    seen = np.zeros(len(indptr) - 1, np.bool_)
    out = np.empty(most, np.int32)
    queue = np.empty(len(indptr) - 1, np.int32)
    size, tail = 0, 0
    for start in starts:
        if size == most:
            break
        if seen[start]:
            continue
        until = min(most, size + region)
        head = tail
        seen[start] = True
        queue[tail] = start
        tail += 1
        while head < tail and size < until:
            v = queue[head]
            head += 1
            if wanted[v]:
                out[size] = v
                size += 1
            for e in range(indptr[v], indptr[v + 1]):
                u = indices[e]
                if not seen[u]:
                    seen[u] = True
                    queue[tail] = u
                    tail += 1
    return out[:size]
