"""Which nodes' errors reach an output least averaged: what further stages of a code are spent
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["exposed", "exposure"]


@njit(cache=True, nogil=True)
def exposure(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], outputs: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Weight of a node's squared error in the first layer of all outputs.

    An output reads its own row as it is and the mean of its in-neighbours: of independent errors,
    that of node v comes to output o with weight 1 where v = o and 1 / deg(o)^2 where v is a
    neighbour. So outputs are exposed, and hubs: nodes that many outputs of few neighbours read. An
    MLP's inputs would all weigh 1 (arXiv 2207.14696, section 3).

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E]; row = destination.
    outputs : distinct ids.

    Returns
    -------
    f8[N], summed in the order of `outputs`. O(their degrees).
    """
    weight = np.zeros(indptr.size - 1)
    for o in outputs:
        weight[o] += 1.0
        degree = indptr[o + 1] - indptr[o]
        for k in range(indptr[o], indptr[o + 1]):
            weight[indices[k]] += 1.0 / (degree * degree)
    return weight


def exposed(weight: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The `count` nodes of largest weight, ascending; of equal ones the lowest ids. O(N)."""
    if count >= len(weight):
        return np.arange(len(weight))
    if not count:
        return np.zeros(0, np.int64)
    least = np.partition(weight, len(weight) - count)[len(weight) - count]
    above = np.flatnonzero(weight > least)
    equal = np.flatnonzero(weight == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))
