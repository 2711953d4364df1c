"""What a record holds of its nodes' neighbours, hop by hop, without building the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HOPS", "held_sums"]

HOPS = 3
"""Hops whose nodes' neighbours are counted: outputs, their neighbours, and theirs."""


@njit(cache=True, nogil=True)
def held_sums(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    n_id: NDArray[np.int32],
    outputs: NDArray[np.int32],
    hop: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Of each hop of a record: shares of in-neighbours that are inside it, summed over its nodes;
    and their counts.

    A hop is the breadth-first distance from the outputs along in-edges inside the record, as in a
    packed one. A node without neighbours lacks none: its share is 1. O(sum of the degrees of the
    record's nodes).

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E] CSR, row = destination
    n_id : i4[n], distinct nodes of the record
    outputs : i4[o], those of them that are outputs
    hop : i4[N], all -2; left so

    Returns
    -------
    f8[3, HOPS] : sum of shares, nodes, edges inside, of hops 0, 1, ... (edges: of the last hop's
    too, all further ones
        with it)
    """
    sums = np.zeros((3, HOPS), np.float64)
    queue = np.empty(len(n_id), np.int32)
    for v in n_id:
        hop[v] = -1
    tail = 0
    for v in outputs:
        hop[v] = 0
        queue[tail] = v
        tail += 1
    head = 0
    while head < tail:
        v = queue[head]
        head += 1
        inside = 0
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            if hop[u] == -2:
                continue
            inside += 1
            if hop[u] == -1:
                hop[u] = hop[v] + 1
                queue[tail] = u
                tail += 1
        at = min(hop[v], HOPS - 1)
        sums[2, at] += inside
        if hop[v] < HOPS:
            degree = indptr[v + 1] - indptr[v]
            sums[0, at] += inside / degree if degree else 1.0
            sums[1, at] += 1.0
    for v in n_id:
        hop[v] = -2
    return sums
