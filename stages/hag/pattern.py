"""The 0/1 CSR that is searched: with or without the diagonal, columns sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pattern"]


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
