"""A CSR made ready to be searched: sorted, equal columns and equal rows merged, what is too rare
set aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import csr_crc
from stockpot.stages.hag.search.csr_rows import distinct_rows, merged
from stockpot.stages.hag.search.working import live, working_rows
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["GROUP", "UNLIMITED", "Prepared", "Settings", "fewest_reads", "prepared"]

GROUP = 1 << 17
"""Entries from which a run of components is searched alone; fewer are one component."""


UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes
    ----------
    min_count : rows a pair must stand in to be merged. 3: a merge of 2 saves an addition and no
        read.
    capacity : most merges as a share of the columns; None: all there are. A HAG's twin rows count
        too (`find`).
    row_limit : rows of more columns that could be shared are merged, not counted: that costs the
        square of a row.

    Raises
    ------
    BadInput
        For values out of range.
    """

    min_count: int = 3
    capacity: float | None = None
    row_limit: int = 2048

    def __post_init__(self) -> None:
        if self.capacity is not None and not self.capacity >= 0:
            raise BadInput(
                f"hag.capacity is {self.capacity}, expected a share of the nodes, 0 or more",
                fix="--set hag.capacity=auto",
            )
        if self.min_count < 2:
            raise BadInput(
                f"a pair must stand in 2 rows at least to be shared, min_count is {self.min_count}",
                fix="min_count=3",
            )

    def most(self, num_nodes: int) -> int:
        """Most aggregation nodes of a CSR with so many columns."""
        return (
            UNLIMITED if self.capacity is None else min(UNLIMITED, int(self.capacity * num_nodes))
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A CSR made ready to be searched: each distinct row once, the entries that could be shared
    apart.

    Attributes
    ----------
    num_rows ... same : as of `Merges`.
    ptr, symbols : i8[D + 1], i4, CSR of the distinct rows.
    degree : i4[symbols], distinct rows of each symbol that could be shared, 0 for the others.
    row_id, column_id, lists_ptr, lists, t_ptr, t_lists, row_ends, column_ends : of `working_rows`.
    """

    num_rows: int
    num_nodes: int
    crc: int
    plain_reads: int
    plain_adds: int
    column: NDArray[np.int32]
    weight: NDArray[np.int32] | None
    same: NDArray[np.int32]
    ptr: NDArray[np.int64]
    symbols: NDArray[np.int32]
    degree: NDArray[np.int32]
    row_id: NDArray[np.int32]
    column_id: NDArray[np.int32]
    lists_ptr: NDArray[np.int64]
    lists: NDArray[np.int32]
    t_ptr: NDArray[np.int64]
    t_lists: NDArray[np.int32]
    row_ends: NDArray[np.int64]
    column_ends: NDArray[np.int64]

    def fewest_reads(self, how: Settings) -> float:
        """A floor under the reads of every HAG of this CSR, estimated on large graphs; see
        `fewest_reads`.
        """
        shared = fewest_reads(
            self.lists_ptr, self.lists, self.t_ptr, self.t_lists, how.min_count, how.row_limit
        )
        again = (
            np.bincount(self.same, minlength=len(self.ptr) - 1)[self.ptr[1:] > self.ptr[:-1]] - 1
        )
        return shared + len(self.symbols) - len(self.lists) + int(again.sum())


def prepared(
    indptr: NDArray[Any], indices: NDArray[Any], num_nodes: int | None, how: Settings
) -> Prepared:
    """Sort, merge equal columns and equal rows, set aside what is too rare. O(E)."""
    num_rows = len(indptr) - 1
    columns = num_rows if num_nodes is None else num_nodes
    ptr, entries, times = merged(indptr, indices, columns)
    column, weight = np.arange(columns, dtype=np.int32), None
    if times is not None:
        entries, column, weight = _split_by_multiplicity(ptr, entries, times, columns)
    adds = int(np.maximum(ptr[1:] - ptr[:-1] - 1, 0).sum())
    same, row_ptr, symbols = distinct_rows(ptr, entries)
    rows, degree = live(row_ptr, symbols, len(column), how.min_count)
    work = working_rows(row_ptr, symbols, rows, degree, GROUP)
    crc = csr_crc(indptr, indices)
    return Prepared(
        num_rows,
        columns,
        crc,
        len(entries),
        adds,
        column,
        weight,
        same,
        row_ptr,
        symbols,
        degree,
        *work,
    )


def _split_by_multiplicity(
    ptr: NDArray[np.int64], entries: NDArray[np.int32], times: NDArray[np.int32], columns: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """One symbol for each column and multiplicity, sorted in each row; the columns themselves come
    first.
    """
    several = times > 1
    keys, number = np.unique(
        entries[several].astype(np.int64) << 32 | times[several], return_inverse=True
    )
    symbols = entries.copy()
    symbols[several] = columns + number
    row = np.repeat(np.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
    symbols = symbols[np.lexsort((symbols, row))]
    column = np.r_[np.arange(columns), keys >> 32].astype(np.int32)
    weight = np.r_[np.ones(columns, np.int64), keys & 0xFFFFFFFF].astype(np.int32)
    return symbols, column, weight


_EFFORT = 4
"""Entries looked at for each entry of the CSR, about; columns are sampled where counting all pairs
would take more."""


@njit(cache=True, nogil=True)
def fewest_reads(
    ptr: NDArray[np.int64],
    lists: NDArray[np.int32],
    t_ptr: NDArray[np.int64],
    t_lists: NDArray[np.int32],
    min_count: int,
    limit: int,
    effort: int = _EFFORT,
) -> float:
    """Reads that remain of the live rows whatever is merged: exact floor, or its estimate from
    every n-th column.

    What reads column a directly, node or result, serves at most as many rows as hold both a and its
    best partner, or one; and a row that shares anything reads an aggregation node. A column without
    a pair of `min_count` rows is read by every row that holds it.

    Parameters
    ----------
    ptr, lists, t_ptr, t_lists, min_count, limit : as of `greedy.merge_lists`, nothing is
        overwritten.
    """
    num_rows, num_symbols = len(ptr) - 1, len(t_ptr) - 1
    work, long = 0, 0
    for u in range(num_rows):
        if ptr[u + 1] - ptr[u] <= limit:
            work += int(ptr[u + 1] - ptr[u]) ** 2
        else:
            long += 1
    step = max(1, work // max(1, effort * len(lists)))
    count, seen = np.zeros(num_symbols, np.int32), np.empty(num_symbols, np.int32)
    alive = np.zeros(num_symbols, np.bool_)
    reads, looked, shared = 0.0, 0, 0
    for a in range(step // 2, num_symbols, step):
        best, num_seen = 0, 0
        for j in range(t_ptr[a], t_ptr[a + 1]):
            u = t_lists[j]
            if ptr[u + 1] - ptr[u] > limit:
                continue
            for i in range(ptr[u], ptr[u + 1]):
                x = lists[i]
                if count[x] == 0:
                    seen[num_seen] = x
                    num_seen += 1
                count[x] += 1
                if x != a and count[x] > best:
                    best = count[x]
        for i in range(num_seen):
            count[seen[i]] = 0
        held = t_ptr[a + 1] - t_ptr[a]
        alive[a] = best >= min_count
        reads += held / min(held, best + long) if alive[a] else held
        shared += held if alive[a] else 0
        looked += held
    if looked == 0:
        return float(len(lists))
    sharing = 0.0
    if step > 1:
        sharing = num_rows * shared / looked
    else:
        for u in range(num_rows):
            found = 0
            for i in range(ptr[u], ptr[u + 1]):
                found += alive[lists[i]]
            sharing += found > 1
    return sharing + reads * len(lists) / looked
