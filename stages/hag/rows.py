"""Rows of a CSR as the search and the plain HAG read them: columns sorted, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stockpot.stages.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["merged"]


def merged(
    indptr: NDArray[Any], indices: NDArray[Any], num_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32] | None]:
    """Same rows with sorted columns, each once, and how often it stood there (None: all once). O(E log degree).

    Rows that are so already are handed back as they are.
    """
    ptr, columns = np.asarray(indptr, np.int64), np.asarray(indices, np.int32)
    if _rising(ptr, columns):
        return ptr, columns, None
    a = sp.csr_matrix(
        (np.ones(len(columns), np.int32), columns.copy(), ptr.copy()), shape=(len(ptr) - 1, num_nodes)
    )  # copies: sorting is in place
    a.sort_indices()
    a.sum_duplicates()
    count = a.data.astype(np.int32, copy=False)
    return a.indptr.astype(np.int64), a.indices.astype(np.int32), None if (count == 1).all() else count


@njit(cache=True, nogil=True)
def _rising(ptr: NDArray[np.int64], columns: NDArray[np.int32]) -> bool:
    """Whether every row's columns rise strictly."""
    for u in range(len(ptr) - 1):
        for i in range(ptr[u] + 1, ptr[u + 1]):
            if columns[i] <= columns[i - 1]:
                return False
    return True
