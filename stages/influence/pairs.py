"""Pairs of outputs by falling PPR overlap, in one order fixed by the values and the ids alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["descending", "overlaps", "shared"]


@njit(cache=True, nogil=True)
def overlaps(
    ptr: NDArray[np.int64], cols: NDArray[np.int32], values: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Strict lower triangle of M + M^T, rows rising, columns rising in a row.

    O(nnz) time beside sorting the short rows; 24 bytes an entry. Source: arXiv 2212.09083 (W of
    node-wise batching).

    Parameters
    ----------
    ptr, cols, values : i8[O + 1], i4[nnz], f4[nnz], CSR of M over output positions,
        columns unique and not the row itself

    Returns
    -------
    tuple of i4[pairs], i4[pairs], f4[pairs] : row, smaller column, overlap
    """
    n = len(ptr) - 1
    t_ptr = np.zeros(n + 1, np.int64)
    for c in cols:
        t_ptr[c + 1] += 1
    for i in range(n):
        t_ptr[i + 1] += t_ptr[i]
    t_cols, t_values, fill = np.empty_like(cols), np.empty_like(values), t_ptr[:-1].copy()
    for i in range(n):  # rows in order, so every transposed row is sorted
        for e in range(ptr[i], ptr[i + 1]):
            at = fill[cols[e]]
            fill[cols[e]] += 1
            t_cols[at] = i
            t_values[at] = values[e]
    size = 0
    rows, lows, sums = (
        np.empty(len(cols), np.int32),
        np.empty(len(cols), np.int32),
        np.empty(len(cols), np.float32),
    )
    for i in range(n):
        order = np.argsort(cols[ptr[i] : ptr[i + 1]])
        a, b, b_end = 0, t_ptr[i], t_ptr[i + 1]
        while True:
            left = cols[ptr[i] + order[a]] if a < len(order) else n
            right = t_cols[b] if b < b_end else n
            low = min(left, right)
            if low >= i:
                break
            total = np.float32(0.0)
            if left == low:
                total += values[ptr[i] + order[a]]
                a += 1
            if right == low:
                total += t_values[b]
                b += 1
            rows[size] = i
            lows[size] = low
            sums[size] = total
            size += 1
    return rows[:size].copy(), lows[:size].copy(), sums[:size].copy()


@njit(cache=True, nogil=True)
def shared(
    top: NDArray[np.int32], value: NDArray[np.float32], num_nodes: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Neighbours in the list of outputs that hold a node among their largest entries, for every
    node.

    A linear stand-in for the inner products of the rows of PPR: outputs that share auxiliary nodes
    are linked although neither holds the other. Weight = the smaller of the two entries. O(O k)
    time and pairs.

    Parameters
    ----------
    top, value : i4[O, k], f4[O, k] of `push_top`, padded with -1

    Returns
    -------
    tuple of i4[pairs], i4[pairs], f4[pairs] : two output positions and the weight; pairs may repeat
    """
    n, k = top.shape
    last = np.full(num_nodes, -1, np.int32)
    last_value = np.zeros(num_nodes, np.float32)
    rows, lows, weights = (
        np.empty(n * k, np.int32),
        np.empty(n * k, np.int32),
        np.empty(n * k, np.float32),
    )
    size = 0
    for i in range(n):
        for j in range(k):
            v = top[i, j]
            if v < 0:
                break
            if last[v] >= 0:
                rows[size] = i
                lows[size] = last[v]
                weights[size] = min(value[i, j], last_value[v])
                size += 1
            last[v] = i
            last_value[v] = value[i, j]
    return rows[:size].copy(), lows[:size].copy(), weights[:size].copy()


@njit(cache=True, nogil=True)
def descending(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Stable order by falling weight: a radix sort on the bits, which order non-negative floats as
    integers.

    Parameters
    ----------
    weights : f4[n], not negative, no NaN

    Returns
    -------
    i8[n]
    """
    n = len(weights)
    keys = ~weights.view(np.uint32)
    order, other = np.arange(n), np.empty(n, np.int64)
    for shift in (0, 11, 22):
        counts = np.zeros(2049, np.int64)
        for i in range(n):
            counts[((keys[i] >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
        for b in range(2048):
            counts[b + 1] += counts[b]
        for i in range(n):
            at = order[i]
            bucket = (keys[at] >> np.uint32(shift)) & np.uint32(2047)
            other[counts[bucket]] = at
            counts[bucket] += 1
        order, other = other, order
    return order
