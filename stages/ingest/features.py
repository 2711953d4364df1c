"""Every stored feature is finite; sparse rows have sorted, unique columns and no stored zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.ingest.members import Members

__all__ = ["SparseRows", "read_features"]

_PARTS = ("x_data", "x_indices", "x_indptr", "x_shape")
_BLOCK = 1 << 22  # values looked at together


@dataclass(frozen=True)
class SparseRows:
    """CSR feature rows: `indptr` i8[N+1], `indices` i4 sorted and unique in a row, `data` f4, None where all are 1."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32] | None
    columns: int


def read_features(members: Members, num_nodes: int) -> NDArray[np.float32] | SparseRows | None:
    """f4[N, D] from `x`, `SparseRows` from `x_data`, `x_indices`, `x_indptr`, `x_shape`, or None without features."""
    parts = [name for name in _PARTS if name in members]
    if "x" in members:
        if parts:
            raise members.bad("x", f"expected either x or the parts of a CSR matrix, found also {parts[0]}")
        return _dense(members, num_nodes)
    return _sparse(members, num_nodes) if parts else None


def _dense(members: Members, num_nodes: int) -> NDArray[np.float32]:
    x = members["x"]
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise members.bad("x", f"expected numbers of shape ({num_nodes}, D), found shape {x.shape} of {x.dtype}")
    if len(x) != num_nodes:
        raise members.bad("x", f"expected {num_nodes} rows, one a node, found {len(x)}")
    if x.shape[1] == 0:
        raise members.bad("x", "expected at least one column, found none")
    # Values too large for float32 become inf and are reported as that.
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, np.float32)
    at = _not_finite(x.ravel())
    if at is not None:
        row, column = divmod(at, x.shape[1])
        raise members.bad("x", f"expected finite features, found {x[row, column]} at node {row}, column {column}")
    return x


def _sparse(members: Members, num_nodes: int) -> SparseRows:
    import scipy.sparse as sp

    indices, indptr, shape = (members[name] for name in _PARTS[1:])
    columns = _columns(members, shape, num_nodes)
    if indptr.shape != (num_nodes + 1,) or indptr.dtype.kind not in "iu":
        raise members.bad(
            "x_indptr", f"expected {num_nodes + 1} integers, found shape {indptr.shape} of {indptr.dtype}"
        )
    indptr = indptr.astype(np.int64)
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise members.bad(
            "x_indptr",
            f"expected offsets rising from 0 to {len(indices)}, the length of x_indices, "
            f"found {indptr[0]} to {indptr[-1]}" + (", falling between" if (np.diff(indptr) < 0).any() else ""),
        )
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise members.bad("x_indices", f"expected integers, found shape {indices.shape} of {indices.dtype}")
    if indices.size and (indices.min() < 0 or indices.max() >= columns):
        at = int(np.flatnonzero((indices < 0) | (indices >= columns))[0])
        row = int(np.searchsorted(indptr, at, side="right")) - 1
        raise members.bad("x_indices", f"expected columns from 0 to {columns - 1}, found {indices[at]} at node {row}")
    data = members["x_data"] if "x_data" in members else np.ones(len(indices), np.uint8)
    if data.shape != indices.shape or data.dtype.kind not in "fiub":
        raise members.bad(
            "x_data", f"expected {len(indices)} numbers, one a column index, found shape {data.shape} of {data.dtype}"
        )
    with np.errstate(over="ignore"):
        matrix = sp.csr_matrix((data.astype(np.float32), indices.astype(np.int32), indptr), shape=(num_nodes, columns))
    matrix.sum_duplicates()
    at_value = _not_finite(matrix.data)
    if at_value is not None:
        row = int(np.searchsorted(matrix.indptr, at_value, side="right")) - 1
        found, column = matrix.data[at_value], matrix.indices[at_value]
        raise members.bad("x_data", f"expected finite features, found {found} at node {row}, column {column}")
    matrix.eliminate_zeros()
    return SparseRows(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32, copy=False),
        None if (matrix.data == 1).all() else matrix.data,
        columns,
    )


def _columns(members: Members, shape: NDArray[np.int64], num_nodes: int) -> int:
    found = tuple(shape.ravel().tolist())
    if shape.dtype.kind not in "iu" or len(found) != 2 or found[0] != num_nodes or not 1 <= found[1] < 2**31:
        raise members.bad("x_shape", f"expected ({num_nodes}, D): {num_nodes} rows, one a node, found {found}")
    return int(found[1])


def _not_finite(values: NDArray[np.float32]) -> int | None:
    """Position of the first value that is NaN or infinite."""
    for start in range(0, len(values), _BLOCK):
        sound = np.isfinite(values[start : start + _BLOCK])
        if not sound.all():
            return start + int(np.flatnonzero(~sound)[0])
    return None
