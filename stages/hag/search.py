"""The search for shared partial sums of a CSR: deterministic, and the same for any number of threads.

Rows that are equal are found first and searched once. What is left falls into components, searched alone, several at a
time; their merges in the order of their counts are those of one search of everything, up to ties.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from stages.errors import BadInput
from stages.hag.bound import fewest_reads
from stages.hag.greedy import merge_lists
from stages.hag.hag import csr_crc, merged
from stages.hag.merges import Merges
from stages.hag.repair import merge_neighbours
from stages.hag.working import distinct_rows, live, working_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Prepared", "Settings", "prepared", "search", "search_prepared"]

_GROUP = 1 << 17  # entries from which a run of components is searched alone
UNLIMITED = 1 << 30
METHODS = ("greedy", "repair")


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes
    ----------
    min_count : rows a pair must stand in to be merged. 3: a merge of 2 saves an addition and no read.
    capacity : most merges as a share of the columns; None: all there are. A HAG's twin rows count too (`find`).
    row_limit : rows of more columns that could be shared are merged, not counted: that costs the square of a row.
    method : greedy, or repair for graphs of many long hubs: less is found, in time near linear (`stages.hag.repair`).

    Raises
    ------
    BadInput
        For values out of range.
    """

    min_count: int = 3
    capacity: float | None = None
    row_limit: int = 2048
    method: str = "greedy"

    def __post_init__(self) -> None:
        if self.capacity is not None and not self.capacity >= 0:
            raise BadInput(
                f"hag.capacity is {self.capacity}, expected a share of the nodes, 0 or more",
                fix="--set hag.capacity=auto",
            )
        if self.method not in METHODS:
            raise BadInput(f"hag search method {self.method!r}, expected {' | '.join(METHODS)}", fix="method='greedy'")
        if self.min_count < 2:
            raise BadInput(
                f"a pair must stand in 2 rows at least to be shared, min_count is {self.min_count}", fix="min_count=3"
            )

    def merge(self, num_nodes: int, *rows: NDArray[Any]) -> tuple[NDArray[np.int32], ...]:
        """Merges of some rows, `ptr, lists, t_ptr, t_lists` of `merge_lists`, of a CSR with so many columns."""
        if self.method == "repair":
            return merge_neighbours(rows[0], rows[1], len(rows[2]) - 1, self.min_count, self.most(num_nodes))
        return merge_lists(*rows, self.min_count, self.most(num_nodes), self.row_limit)

    def most(self, num_nodes: int) -> int:
        """Most aggregation nodes of a CSR with so many columns."""
        return UNLIMITED if self.capacity is None else min(UNLIMITED, int(self.capacity * num_nodes))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A CSR made ready to be searched: each distinct row once, the entries that could be shared apart.

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
        """A floor under the reads of every HAG of this CSR, estimated on large graphs; see `stages.hag.bound`."""
        shared = fewest_reads(self.lists_ptr, self.lists, self.t_ptr, self.t_lists, how.min_count, how.row_limit)
        again = np.bincount(self.same, minlength=len(self.ptr) - 1)[self.ptr[1:] > self.ptr[:-1]] - 1
        return shared + len(self.symbols) - len(self.lists) + int(again.sum())


def prepared(
    indptr: NDArray[Any], indices: NDArray[Any], num_nodes: int | None = None, how: Settings = Settings()
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
    work = working_rows(row_ptr, symbols, rows, degree, _GROUP)
    crc = csr_crc(indptr, indices)
    return Prepared(num_rows, columns, crc, len(entries), adds, column, weight, same, row_ptr, symbols, degree, *work)


def search(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    num_nodes: int | None = None,
    *,
    settings: Settings | None = None,
    threads: int = 1,
) -> Merges:
    """Search a CSR; `stages.hag.shape` makes a HAG of what was found.

    Where the model also aggregates a node itself, give the CSR with the diagonal: rows of a clique are equal then.

    Parameters
    ----------
    indptr, indices : i8 | i4 [R + 1], i8 | i4 [E]; repeated columns are multiplicities, shared where they are equal.
    num_nodes : columns of the CSR; as many as rows by default.
    """
    how = Settings() if settings is None else settings
    return search_prepared(prepared(indptr, indices, num_nodes, how), how, threads=threads)


def search_prepared(work: Prepared, how: Settings, *, threads: int = 1) -> Merges:
    """Merges of all components, by falling count. Overwrites the lists of `work`."""
    found = _search_components(work, how, threads)
    return Merges(
        work.num_rows,
        work.num_nodes,
        work.crc,
        work.plain_reads,
        work.plain_adds,
        work.column,
        work.weight,
        work.same,
        *found,
    )


def _split_by_multiplicity(
    ptr: NDArray[np.int64], entries: NDArray[np.int32], times: NDArray[np.int32], columns: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """One symbol for each column and multiplicity, sorted in each row; the columns themselves come first."""
    several = times > 1
    keys, number = np.unique(entries[several].astype(np.int64) << 32 | times[several], return_inverse=True)
    symbols = entries.copy()
    symbols[several] = columns + number
    row = np.repeat(np.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
    symbols = symbols[np.lexsort((symbols, row))]
    column = np.r_[np.arange(columns), keys >> 32].astype(np.int32)
    weight = np.r_[np.ones(columns, np.int64), keys & 0xFFFFFFFF].astype(np.int32)
    return symbols, column, weight


def _search_components(
    work: Prepared, how: Settings, threads: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Merges of all components by falling count, and the rows after all of them."""
    lists_ptr, lists, row_ends, column_ends = work.lists_ptr, work.lists, work.row_ends, work.column_ends
    first = len(work.degree)
    groups = _groups(lists_ptr[row_ends])

    def one(group: tuple[int, int]) -> tuple[NDArray[np.int32], ...]:
        (r0, r1), (s0, s1) = row_ends[list(group)], column_ends[list(group)]
        low, high = lists_ptr[r0], lists_ptr[r1]
        lists[low:high] -= s0
        return how.merge(
            work.num_nodes,
            lists_ptr[r0 : r1 + 1] - low,
            lists[low:high],
            work.t_ptr[s0 : s1 + 1] - low,
            work.t_lists[low:high] - r0,
        )

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, groups))
    counts = np.concatenate([np.empty(0, np.int32), *(part[1] for part in found)])
    order = np.argsort(
        -counts, kind="stable"
    )  # of equal ones, those of an earlier group and the earlier of a group first
    number = np.empty(len(order), np.int32)
    number[order] = first + np.arange(len(order), dtype=np.int32)
    pairs = np.empty((len(counts), 2), np.int32)
    size, start = np.zeros(len(work.row_id), np.int32), 0
    for (g0, g1), part in zip(groups, found, strict=True):
        (r0, r1), (s0, s1) = row_ends[[g0, g1]], column_ends[[g0, g1]]
        names = np.concatenate([work.column_id[s0:s1], number[start : start + len(part[1])]])
        pairs[start : start + len(part[1])] = names[part[0]]
        _rename(lists_ptr[r0 : r1 + 1], part[3], lists, names)
        size[r0:r1] = part[3]
        start += len(part[1])
    applied = np.concatenate([np.empty(0, np.int32), *(part[2] for part in found)])[order]
    rows = _whole_rows(work.ptr, work.symbols, work.degree, work.row_id, lists_ptr, size, lists)
    return pairs[order], counts[order], applied, *rows


def _groups(ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of components of `_GROUP` entries and more, the last excepted; `ends` are their entries, summed up."""
    out, low = [], 0
    while low < len(ends) - 1:
        high = min(len(ends) - 1, int(np.searchsorted(ends, ends[low] + _GROUP)))
        out.append((low, high))
        low = high
    return out


@njit(cache=True, nogil=True)
def _rename(
    ptr: NDArray[np.int64], size: NDArray[np.int32], lists: NDArray[np.int32], names: NDArray[np.int32]
) -> None:
    """Replace the symbols of a group by those of the whole."""
    for r in range(len(size)):
        for i in range(ptr[r], ptr[r] + size[r]):
            lists[i] = names[lists[i]]


@njit(cache=True, nogil=True)
def _whole_rows(
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    degree: NDArray[np.int32],
    row_id: NDArray[np.int32],
    lists_ptr: NDArray[np.int64],
    size: NDArray[np.int32],
    lists: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """All distinct rows after the merges: what was searched, and the entries that were too rare for it."""
    place = np.full(len(ptr) - 1, -1, np.int32)
    place[row_id] = np.arange(len(row_id)).astype(np.int32)
    out_ptr = np.zeros(len(ptr), np.int64)
    out = np.empty(len(symbols), np.int32)
    at = 0
    for u in range(len(ptr) - 1):
        for i in range(ptr[u], ptr[u + 1]):
            if place[u] < 0 or degree[symbols[i]] == 0:
                out[at] = symbols[i]
                at += 1
        if place[u] >= 0:
            low = lists_ptr[place[u]]
            out[at : at + size[place[u]]] = lists[low : low + size[place[u]]]
            at += size[place[u]]
        out_ptr[u + 1] = at
    return out_ptr, out[:at].copy()
