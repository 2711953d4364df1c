"""A record's HAG as columns of the record, tied to its CSR by a checksum: read back it is the same,
or refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import Hag, csr_crc, fault
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = [
    "COLUMNS",
    "columns_of",
    "csr_of",
    "factors",
    "hag_of",
    "has_loops",
    "mismatch",
    "scale_of",
]

COLUMNS: dict[str, np.dtype[Any]] = {
    "hag_about": np.dtype(
        "i8"
    ),  # crc32c of the record's CSR, whether the diagonal is in, reads and adds without it
    "hag_level_ptr": np.dtype("i4"),
    "hag_indptr": np.dtype("i4"),
    "hag_indices": np.dtype("i4"),
    "hag_out_indptr": np.dtype("i4"),
    "hag_out_indices": np.dtype("i4"),
    "hag_scale": np.dtype(
        "f4"
    ),  # factors of the edge weights, left then right, [2 n]; empty where there are none
}


def columns_of(
    hag: Hag | None,
    indptr: NDArray[Any],
    indices: NDArray[Any],
    *,
    loops: bool = False,
    scale: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Columns by name; all empty without a HAG.

    Parameters
    ----------
    hag : of the CSR `indptr`, `indices` of the record, with the diagonal added where `loops`.
    scale : factors of the edge weights, see `stockpot.stages.hag.columns`.
    """
    if hag is None:
        return {name: np.zeros(0, kind) for name, kind in COLUMNS.items()}
    about = [csr_crc(indptr, indices), int(loops), hag.plain_reads, hag.plain_adds]
    arrays = {
        "hag_about": np.array(about),
        "hag_level_ptr": hag.level_ptr,
        "hag_indptr": hag.indptr,
        "hag_indices": hag.indices,
        "hag_out_indptr": hag.out_indptr,
        "hag_out_indices": hag.out_indices,
        "hag_scale": np.zeros(0) if scale is None else np.concatenate(scale),
    }
    return {name: arrays[name].astype(kind) for name, kind in COLUMNS.items()}


def hag_of(record: Record) -> Hag | None:
    """The HAG of a record; None where it has none. Its pointers are widened, the rest are views."""
    if record.hag_about is None or not record.hag_about.size:
        return None
    found = record
    assert found.hag_level_ptr is not None
    assert found.hag_indptr is not None
    assert found.hag_indices is not None
    assert found.hag_out_indptr is not None
    assert found.hag_out_indices is not None
    return Hag(
        record.num_nodes,
        record.num_nodes,
        level_ptr=found.hag_level_ptr.astype(np.int64),
        indptr=found.hag_indptr.astype(np.int64),
        indices=found.hag_indices,
        out_indptr=found.hag_out_indptr.astype(np.int64),
        out_indices=found.hag_out_indices,
        weight=None,
        out_weight=None,
        crc=int(record.hag_about[0]),
        plain_reads=int(record.hag_about[2]),
        plain_adds=int(record.hag_about[3]),
    )


def has_loops(record: Record) -> bool:
    """Whether the diagonal is in the record's HAG."""
    return record.hag_about is not None and record.hag_about.size > 0 and bool(record.hag_about[1])


def scale_of(record: Record) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Factors (left f4[n], right f4[n]) of the record's edge weights."""
    if record.hag_scale is None or not record.hag_scale.size:
        return None
    return record.hag_scale[: record.num_nodes], record.hag_scale[record.num_nodes :]


def mismatch(record: Record) -> str | None:
    """What of a record's HAG does not belong to its CSR, None where nothing does. O(edges)."""
    if record.hag_about is None or not record.hag_about.size:
        return None
    expected, found = int(record.hag_about[0]), csr_crc(record.indptr, record.indices)
    if found != expected:
        return (
            f"HAG: expected a CSR with checksum {expected:08x}, which it was searched on, found "
            f"{found:08x}"
        )
    hag = hag_of(record)
    assert hag is not None
    wrong = fault(hag)
    return f"HAG: {wrong}" if wrong else None


TOLERANCE = 1e-5
"""Relative; weights are mostly products rounded to float32."""


def csr_of(
    edge_index: NDArray[Any], num_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """CSR of the edges (row = destination, columns sorted, repeats kept) and, i8[E], the edge of
    each entry.

    Raises
    ------
    BadInput
        It is not (2, E), or a node id is outside the graph.
    """
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise BadInput(f"edge_index: expected shape (2, E), found {tuple(edge_index.shape)}")
    source, target = edge_index
    bad = np.flatnonzero((edge_index < 0).any(0) | (edge_index >= num_nodes).any(0))
    if bad.size:
        k = int(bad[0])
        raise BadInput(f"edge {k} is {source[k]} -> {target[k]}: expected nodes 0..{num_nodes - 1}")
    order = np.lexsort((source, target))
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(np.bincount(target, minlength=num_nodes), out=indptr[1:])
    return indptr, source[order].astype(np.int32), order


@njit(cache=True, nogil=True)
def _spread(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    t_indptr: NDArray[np.int64],
    t_rows: NDArray[np.int32],
    t_values: NDArray[np.float64],
    tolerance: float,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
) -> int:
    """Give every connected row its left and every column its right factor; the first entry that
    contradicts, or -1.

    A row's first weights fix what is free: each connected part of the bipartite graph has one free
    scale.
    """
    rows, cols = left.size, right.size
    stack = np.empty(rows + cols, np.int64)
    for root in range(rows):
        if left[root] != 0 or indptr[root] == indptr[root + 1]:
            continue
        left[root] = 1
        stack[0], height = root, 1
        while height:
            height -= 1
            node = stack[height]
            if node < rows:
                for k in range(indptr[node], indptr[node + 1]):
                    c = indices[k]
                    if right[c] == 0 and values[k] != 0:
                        right[c] = values[k] / left[node]
                        stack[height] = rows + c
                        height += 1
            else:
                for k in range(t_indptr[node - rows], t_indptr[node - rows + 1]):
                    i = t_rows[k]
                    if left[i] == 0 and t_values[k] != 0:
                        left[i] = t_values[k] / right[node - rows]
                        stack[height] = i
                        height += 1
    for i in range(rows):
        for k in range(indptr[i], indptr[i + 1]):
            if not abs(left[i] * right[indices[k]] - values[k]) <= tolerance * abs(values[k]):
                return k
    return -1


def factors(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(left f8[N], right f8[N]) with left[row] * right[column] equal to every weight. O(E).

    Parameters
    ----------
    values : f8[E], in CSR order. Scales are free in every connected part: where all weights of a
        part are right's alone, left is 1 there.

    Raises
    ------
    BadInput
        Weights do not factor (attention, distances, general weights), or one is 0, infinite or not
        a number.
    """
    import scipy.sparse as sp

    n = indptr.size - 1
    row = np.repeat(np.arange(n), np.diff(indptr))
    bad = np.flatnonzero(~np.isfinite(values) | (values == 0))
    if bad.size:
        k = int(bad[0])
        raise BadInput(
            f"edge {indices[k]} -> {row[k]}: expected a finite weight other than 0, found "
            f"{values[k]:g}",
            fix="leave such edges out",
        )
    turned = (
        sp.csr_matrix((np.arange(1, values.size + 1), indices, indptr), (n, n)).tocsc(copy=True)
        if n
        else None
    )
    places = np.zeros(0, np.int64) if turned is None else turned.data - 1
    t_indptr = np.zeros(1, np.int64) if turned is None else turned.indptr.astype(np.int64)
    left, right = np.zeros(n), np.zeros(n)
    k = _spread(
        indptr,
        indices,
        values,
        t_indptr,
        row[places].astype(np.int32),
        values[places],
        TOLERANCE,
        left,
        right,
    )
    if k >= 0:
        raise BadInput(
            f"edge {indices[k]} -> {row[k]}: its weight {values[k]:g} is not left[{row[k]}] * "
            f"right[{indices[k]}] "
            f"= {left[row[k]] * right[indices[k]]:g} that other edges give",
            fix="aggregate them without a HAG: only weights of the form left[target] * "
            "right[source] share sums",
        )
    left[left == 0] = 1
    right[right == 0] = 1
    return left, right
