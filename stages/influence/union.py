"""Nodes of a record: the outputs and their most influential nodes, each once, sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.push import _push
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mass_inside", "record_nodes"]


@njit(cache=True, nogil=True)
def record_nodes(
    outputs: NDArray[np.int32],
    members: NDArray[np.int64],
    ptr: NDArray[np.int64],
    top: NDArray[np.int32],
    num_nodes: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Union of the largest entries of a record's outputs and the outputs themselves, for every
    record.

    O(O k) time beside sorting each record.

    Parameters
    ----------
    outputs : i4[O], all outputs of the split, sorted
    members, ptr : i8[O], i8[R + 1], positions in `outputs`, record by record
    top : i4[O, k], largest entries by position, padded with -1
    num_nodes : N

    Returns
    -------
    tuple of i4[rows], i8[R + 1] : sorted unique node ids, record by record
    """
    k = top.shape[1]
    stamp = np.full(num_nodes, -1, np.int32)
    out = np.empty(len(members) * (k + 1), np.int32)
    out_ptr = np.zeros(len(ptr), np.int64)
    size = 0
    for r in range(len(ptr) - 1):
        start = size
        for i in range(ptr[r], ptr[r + 1]):
            position = members[i]
            for j in range(k + 1):
                v = outputs[position] if j == k else top[position, j]
                if v >= 0 and stamp[v] != r:
                    stamp[v] = r
                    out[size] = v
                    size += 1
        out[start:size] = np.sort(out[start:size])
        out_ptr[r + 1] = size
    return out[:size].copy(), out_ptr


@njit(cache=True, nogil=True)
def mass_inside(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    spread: NDArray[np.float64],
    settle: NDArray[np.float64],
    seeds: NDArray[np.int32],
    records: NDArray[np.int32],
    alpha: float,
    state: NDArray[np.float64],
    p: NDArray[np.float64],
    lists: NDArray[np.int32],
    n_id: NDArray[np.int32],
    n_ptr: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Share of the estimated PPR of each seed that lies on the nodes of its record.

    Parameters
    ----------
    indptr ... alpha, state, p, lists : as of `push_top`
    seeds, records : i4[S], nodes and the record of each
    n_id, n_ptr : i4[rows], i8[R + 1], nodes of the records, sorted inside each

    Returns
    -------
    f8[S]
    """
    out = np.zeros(len(seeds), np.float64)
    for s in range(len(seeds)):
        inside = n_id[n_ptr[records[s]] : n_ptr[records[s] + 1]]
        num_support, num_touched = _push(
            indptr, indices, weight, spread, settle, seeds[s], alpha, state, p, lists
        )
        total, held = 0.0, 0.0
        for i in range(num_support):
            v = lists[1, i]
            total += p[v]
            at = np.searchsorted(inside, v)
            if at < len(inside) and inside[at] == v:
                held += p[v]
            p[v] = 0.0
        for i in range(num_touched):
            state[lists[2, i], 0] = 0.0
        out[s] = held / total
    return out
