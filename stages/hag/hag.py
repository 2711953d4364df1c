"""A hierarchically aggregated graph (HAG): levels of shared partial sums that give every row of a
CSR its exact sum.

A row of the CSR is the sum over its columns. A HAG holds *aggregation nodes*, partial sums that
several rows need, each a sum of columns and of aggregation nodes of earlier levels; every result is
a sum of what is then there. It is equivalent if and only if each column reaches each result exactly
as often as it stands in the row (arXiv 1906.03707, theorem 1, with the disjointness that sums
need).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    import scipy.sparse as sp
    from numpy.typing import NDArray

__all__ = ["Hag", "check", "cover", "csr_crc", "fault", "plain"]


@dataclass(frozen=True, eq=False)
class Hag:
    """Levels of partial sums. Buffer rows: the columns of the CSR first, then the aggregation nodes
    by level.

    Attributes
    ----------
    num_rows, num_nodes : rows and columns of the CSR it stands for; aggregation node j is buffer
        row num_nodes + j.
    level_ptr : i8[levels + 1], aggregation nodes of level k: level_ptr[k]..level_ptr[k + 1].
    indptr, indices : i8[A + 1], i4, CSR of the A aggregation nodes; a node of level k has columns
        below num_nodes + level_ptr[k], sorted.
    out_indptr, out_indices : i8[num_rows + 1], i4, CSR of the results over the buffer, columns
        sorted. A row that equals another is one column: a gather.
    weight, out_weight : i4 multiplicities of the entries of either CSR; None where all are 1.
    crc : crc32c of the CSR it was searched on (`csr_crc`).
    plain_reads, plain_adds : entries of that CSR, multi-edges merged, and the additions it needs:
        sum of (entries - 1).
    """

    num_rows: int
    num_nodes: int
    level_ptr: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    out_indptr: NDArray[np.int64]
    out_indices: NDArray[np.int32]
    weight: NDArray[np.int32] | None
    out_weight: NDArray[np.int32] | None
    crc: int
    plain_reads: int
    plain_adds: int

    @property
    def num_aggregations(self) -> int:
        """Aggregation nodes, A: rows written beside the results."""
        return len(self.indptr) - 1

    @property
    def num_buffer(self) -> int:
        """Rows of the buffer."""
        return self.num_nodes + self.num_aggregations

    @property
    def depth(self) -> int:
        """Levels of aggregation nodes; 0 is the plain CSR."""
        return len(self.level_ptr) - 1

    @property
    def reads(self) -> int:
        """Rows read: entries of both CSRs."""
        return len(self.indices) + len(self.out_indices)

    @property
    def adds(self) -> int:
        """Additions of one row each: sum of (entries - 1) over all rows of both CSRs."""
        return _adds(self.indptr) + _adds(self.out_indptr)

    @property
    def adds_ratio(self) -> float:
        """Additions of the plain CSR for each of this one's; 1 where neither adds."""
        return max(1, self.plain_adds) / max(1, self.adds)

    @property
    def reads_ratio(self) -> float:
        """Reads of the plain CSR for each of this one's; 1 where neither reads."""
        return max(1, self.plain_reads) / max(1, self.reads)


def _adds(indptr: NDArray[np.int64]) -> int:
    return int(np.maximum(np.diff(indptr) - 1, 0).sum())


def csr_crc(indptr: NDArray[Any], indices: NDArray[Any]) -> int:
    """crc32c of a CSR: its row pointers as little-endian int64, then its columns as int32."""
    start = google_crc32c.value(np.ascontiguousarray(indptr, "<i8"))
    return int(google_crc32c.extend(start, np.ascontiguousarray(indices, "<i4")))


def plain(indptr: NDArray[Any], indices: NDArray[Any], num_nodes: int | None = None) -> Hag:
    """The HAG without aggregation nodes: the CSR itself.

    Parameters
    ----------
    indptr, indices : i8 | i4 [rows + 1], i8 | i4 [E]; columns in any order, repeated ones are
        multiplicities.
    num_nodes : columns of the CSR; as many as rows by default.
    """
    from stockpot.stages.hag.search.csr_rows import (
        merged,
    )  # here: who reads a record does without numba and scipy

    num_rows = len(indptr) - 1
    columns = num_rows if num_nodes is None else num_nodes
    out_indptr, out_indices, out_weight = merged(indptr, indices, columns)
    return Hag(
        num_rows,
        columns,
        level_ptr=np.zeros(1, np.int64),
        indptr=np.zeros(1, np.int64),
        indices=np.empty(0, np.int32),
        out_indptr=out_indptr,
        out_indices=out_indices,
        weight=None,
        out_weight=out_weight,
        crc=csr_crc(indptr, indices),
        plain_reads=len(out_indices),
        plain_adds=_adds(out_indptr),
    )


def cover(hag: Hag) -> sp.csr_matrix:
    """How often each column reaches each result: i8 CSR [num_rows, num_nodes], to be equal to the
    CSR it stands for.

    The product of all levels in integers, exact: the oracle of equivalence. Costs as much as the
    covers of all aggregation nodes together have entries.
    """
    import scipy.sparse as sp

    reached = sp.identity(hag.num_nodes, np.int64, format="csr")
    ends = zip(hag.level_ptr[:-1].tolist(), hag.level_ptr[1:].tolist(), strict=True)
    for start, stop in ends:
        level = _rows(hag.indptr, hag.indices, hag.weight, start, stop, hag.num_nodes + start)
        reached = sp.vstack([reached, level @ reached], format="csr")
    result = (
        _rows(hag.out_indptr, hag.out_indices, hag.out_weight, 0, hag.num_rows, hag.num_buffer)
        @ reached
    )
    result.sort_indices()
    return result


def _rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.int32] | None,
    start: int,
    stop: int,
    columns: int,
) -> sp.csr_matrix:
    """Rows start..stop of a CSR as a scipy matrix of int64."""
    import scipy.sparse as sp

    span = slice(int(indptr[start]), int(indptr[stop]))
    data = (
        np.ones(span.stop - span.start, np.int64)
        if weight is None
        else weight[span].astype(np.int64)
    )
    return sp.csr_matrix(
        (data, indices[span], indptr[start : stop + 1] - span.start), shape=(stop - start, columns)
    )


def check(hag: Hag, indptr: NDArray[Any], indices: NDArray[Any]) -> None:
    """Refuse a HAG that does not belong to this CSR, or whose levels read what is not computed yet.
    O(E).

    Raises
    ------
    BadInput
    """
    mend = "search it again on this CSR"
    if hag.num_rows != len(indptr) - 1:
        raise BadInput(
            f"a HAG of {hag.num_rows} rows does not fit a CSR of {len(indptr) - 1} rows", fix=mend
        )
    found = csr_crc(indptr, indices)
    if found != hag.crc:
        raise BadInput(
            f"the HAG was searched on a CSR with checksum {hag.crc:08x}, this one has {found:08x}",
            fix=mend,
        )
    wrong = fault(hag)
    if wrong:
        raise BadInput(f"the HAG is not well formed: {wrong}", fix=mend)


def fault(hag: Hag) -> str:
    """What is wrong with the levels, or nothing."""
    for name, ptr, last in (
        ("level_ptr", hag.level_ptr, hag.num_aggregations),
        ("indptr", hag.indptr, len(hag.indices)),
        ("out_indptr", hag.out_indptr, len(hag.out_indices)),
    ):
        if ptr[0] != 0 or ptr[-1] != last or (np.diff(ptr) < 0).any():
            return f"{name} does not rise from 0 to {last}"
    if len(hag.out_indptr) != hag.num_rows + 1:
        return f"out_indptr has {len(hag.out_indptr)} entries, expected {hag.num_rows + 1}"
    for weight, columns in ((hag.weight, hag.indices), (hag.out_weight, hag.out_indices)):
        if weight is not None and (len(weight) != len(columns) or (weight < 1).any()):
            return "multiplicities must be one for each entry, and at least 1"
    level = np.repeat(hag.level_ptr[:-1], np.diff(hag.indptr[hag.level_ptr]))
    if ((hag.indices < 0) | (hag.indices >= hag.num_nodes + level)).any():
        return "an aggregation node reads a row of its own level or a later one"
    if ((hag.out_indices < 0) | (hag.out_indices >= hag.num_buffer)).any():
        return "a result reads a row outside the buffer"
    return ""
