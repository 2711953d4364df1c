"""Kernels that read additive codes; sums in the order of the codes, so that every machine gets the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["add_rows"]


@njit(cache=True, nogil=True)
def add_rows(
    ids: NDArray[np.unsignedinteger[Any]],
    rows: NDArray[np.int32],
    lo: NDArray[np.int64],
    hi: NDArray[np.int64],
    offset: NDArray[np.int64],
    values: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Sum of the table rows that `ids` (u1|u2|u4[n, units]) choose, to `out[rows[i]]`; see `Lookup`.

    Preconditions: ids inside their tables, tables in order of their first column where they begin to cover it.
    """
    for i in range(ids.shape[0]):
        row = out[rows[i]]
        done = 0  # columns below are set
        for u in range(lo.size):
            start = lo[u]
            width = hi[u] - start
            at = offset[u] + np.int64(ids[i, u]) * width
            fresh = max(min(done - start, width), 0)
            for j in range(fresh):
                row[start + j] += values[at + j]
            for j in range(fresh, width):
                row[start + j] = values[at + j]
            done = max(done, hi[u])
