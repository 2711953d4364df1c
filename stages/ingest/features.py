"""Every feature row that leaves this module is finite and of a size that training can square in 32
bits.

Sparse rows have sorted, unique columns and no stored zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.errors import BadInput
    from stockpot.stages.ingest.bad import Bad

__all__ = ["SparseRows", "check_dense_rows", "check_sparse_rows"]

_BLOCK = 1 << 20  # values looked at together
_LARGEST = 1e15
"""Gradients of the first layer are sums of features and Adam squares them: beyond this they
overflow in float32."""
_SCALE = "divide each column by its standard deviation, or clip it"


@dataclass(frozen=True)
class SparseRows:
    """CSR rows: `indptr` i8[n+1] from 0, `indices` i4 sorted and unique in a row, `data` f4, None
    where all are 1.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32] | None
    columns: int


def check_dense_rows(
    bad: Bad, name: str, rows: NDArray[Any], first: int = 0
) -> NDArray[np.float32]:
    """Numbers as f4[n, D] in C order, finite; `first` is the node of the first row."""
    # Values too large for float32 become inf and are reported as that.
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(rows, np.float32)
    at = _unusable(rows.reshape(-1))
    if at is not None:
        row, column = divmod(at, rows.shape[1])
        raise _refused(bad, name, rows[row, column], first + row, column)
    return rows


def check_sparse_rows(
    bad: Bad,
    names: tuple[str, str],
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    columns: int,
    first: int = 0,
) -> SparseRows:
    """CSR rows with columns in any order, perhaps twice, as `SparseRows`; values of a column given
    twice are added.

    Parameters
    ----------
    names : fields of column indices and of values, for messages.
    indptr : i8[n+1] from 0, rising. indices : integers. data : numbers, one an index.
    first : node of the first row.
    """
    import scipy.sparse as sp

    if indices.size and (indices.min() < 0 or indices.max() >= columns):
        at = int(np.flatnonzero((indices < 0) | (indices >= columns))[0])
        node = first + int(np.searchsorted(indptr, at, side="right")) - 1
        raise bad(
            names[0],
            f"expected columns from 0 to {columns - 1}, found {indices[at]} at node {node}",
        )
    with np.errstate(over="ignore"):
        values = data.astype(np.float32)
    matrix = sp.csr_matrix(
        (values, indices.astype(np.int32), indptr), shape=(len(indptr) - 1, columns)
    )
    matrix.sum_duplicates()
    wrong = _unusable(matrix.data)
    if wrong is not None:
        node = first + int(np.searchsorted(matrix.indptr, wrong, side="right")) - 1
        raise _refused(bad, names[1], matrix.data[wrong], node, matrix.indices[wrong])
    matrix.eliminate_zeros()
    return SparseRows(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32, copy=False),
        None if (matrix.data == 1).all() else matrix.data,
        columns,
    )


def _refused(bad: Bad, name: str, value: np.float32, node: int, column: int) -> BadInput:
    where = f"found {value} at node {node}, column {column}"
    if not np.isfinite(value):
        return bad(name, f"expected finite features, {where}")
    return bad(name, f"expected features from {-_LARGEST:g} to {_LARGEST:g}, {where}", _SCALE)


def _unusable(values: NDArray[np.float32]) -> int | None:
    """Position of the first value that is NaN, infinite, or too large to be trained on."""
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        sound = (block <= _LARGEST) & (block >= -_LARGEST)  # no order holds for NaN
        if not sound.all():
            return start + int(np.flatnonzero(~sound)[0])
    return None
