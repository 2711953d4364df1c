"""A record's HAG as columns of the record, tied to its CSR by a checksum: read back it is the same,
or refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.hag.hag import Hag, csr_crc, fault

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = [
    "COLUMNS",
    "columns_of",
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
