"""Rows of a CSR as the search and the plain HAG read them: columns sorted, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.splitmix import GOLDEN
from stockpot.stages.kernels.splitmix_kernel import mix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["distinct_rows", "merged", "pattern"]


def merged(
    indptr: NDArray[Any], indices: NDArray[Any], num_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32] | None]:
    """Same rows with sorted columns, each once, and how often it stood there (None: all once). O(E
    log degree).

    Rows that are so already are handed back as they are.
    """
    ptr, columns = np.asarray(indptr, np.int64), np.asarray(indices, np.int32)
    if _rising(ptr, columns):
        return ptr, columns, None
    a = sp.csr_matrix(
        (np.ones(len(columns), np.int32), columns.copy(), ptr.copy()),
        shape=(len(ptr) - 1, num_nodes),
    )  # copies: sorting is in place
    a.sort_indices()
    a.sum_duplicates()
    count = a.data.astype(np.int32, copy=False)
    return (
        a.indptr.astype(np.int64),
        a.indices.astype(np.int32),
        None if (count == 1).all() else count,
    )


@njit(cache=True, nogil=True)
def _rising(ptr: NDArray[np.int64], columns: NDArray[np.int32]) -> bool:
    """Whether every row's columns rise strictly."""
    for u in range(len(ptr) - 1):
        for i in range(ptr[u] + 1, ptr[u + 1]):
            if columns[i] <= columns[i - 1]:
                return False
    return True


@njit(cache=True, nogil=True)
def _pattern(
    rows: int, indptr: NDArray[np.integer[Any]], indices: NDArray[np.integer[Any]], loops: bool
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    out_indptr = np.zeros(rows + 1, np.int64)
    out = np.empty(indptr[rows] + (rows if loops else 0), np.int32)
    end = 0
    for i in range(rows):
        waiting = loops
        for k in range(indptr[i], indptr[i + 1]):
            if waiting and indices[k] > i:
                out[end] = i
                end += 1
                waiting = False
            out[end] = indices[k]
            end += 1
        if waiting:
            out[end] = i
            end += 1
        out_indptr[i + 1] = end
    return out_indptr, out


def pattern(
    indptr: NDArray[Any], indices: NDArray[Any], rows: int | None = None, *, loops: bool
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """CSR of the first rows, with the diagonal where `loops`; columns stay sorted. O(E)."""
    return _pattern(len(indptr) - 1 if rows is None else rows, indptr, indices, loops)


@njit(cache=True, nogil=True)
def _hashes(indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Sum over the columns of a row of 64 scrambled bits each (splitmix64), and of its length."""
    out = np.empty(len(indptr) - 1, np.uint64)
    for u in range(len(out)):
        total = np.uint64(indptr[u + 1] - indptr[u])
        for i in range(indptr[u], indptr[u + 1]):
            total += mix64(np.uint64(indices[i] + 1) * np.uint64(GOLDEN))
        out[u] = total
    return out


@njit(cache=True, nogil=True)
def _twins(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number of the distinct row that each row is, and the first row of each, by a table with
    linear probing.
    """
    same, first = np.empty(len(hashes), np.int32), np.empty(len(hashes), np.int32)
    slots = 2
    while slots < 2 * len(hashes):
        slots *= 2
    table = np.full(slots, -1, np.int32)
    mask, found = np.uint64(slots - 1), 0
    for u in range(len(hashes)):
        length, at = indptr[u + 1] - indptr[u], hashes[u] & mask
        while True:
            d = table[at]
            if d < 0:
                table[at] = same[u] = found
                first[found] = u
                found += 1
                break
            v = first[d]
            equal = hashes[u] == hashes[v] and length == indptr[v + 1] - indptr[v]
            if equal:
                for i in range(length):
                    if indices[indptr[u] + i] != indices[indptr[v] + i]:
                        equal = False
                        break
            if equal:
                same[u] = d
                break
            at = (at + np.uint64(1)) & mask
    return same, first[:found].copy()


def distinct_rows(
    indptr: NDArray[np.int64], indices: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Rows with the same columns, once each, in the order of the first: hashed, then compared.
    O(E).

    Parameters
    ----------
    indptr, indices : i8[R + 1], i4[E], columns sorted and unique in each row.

    Returns
    -------
    same : i4[R], number of the distinct row that each row is
    ptr, columns : i8[D + 1], i4, CSR of the distinct rows
    """
    same, first = _twins(indptr, indices, _hashes(indptr, indices))
    if len(first) == len(same):
        return same, indptr, indices
    return same, *_rows(indptr, indices, first)


@njit(cache=True, nogil=True)
def _rows(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], rows: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """CSR of some rows."""
    ptr = np.zeros(len(rows) + 1, np.int64)
    for i, u in enumerate(rows):
        ptr[i + 1] = ptr[i] + indptr[u + 1] - indptr[u]
    out = np.empty(ptr[-1], np.int32)
    for i, u in enumerate(rows):
        out[ptr[i] : ptr[i + 1]] = indices[indptr[u] : indptr[u + 1]]
    return ptr, out
