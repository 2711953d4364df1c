"""The search for shared partial sums of a CSR: deterministic, and the same for any number of
threads.

Rows that are equal are found first and searched once. What is left falls into components, searched
alone, several at a time; their merges in the order of their counts are those of one search of
everything, up to ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.hag.search.greedy import merge_lists
from stockpot.stages.hag.search.prepared import GROUP, Prepared, Settings, prepared
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.threads import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Merges", "search", "search_prepared"]


@dataclass(frozen=True, eq=False)
class Merges:
    """Symbols are what rows hold: first `num_symbols` entries of the CSR, then merge i as
    num_symbols + i.

    Attributes
    ----------
    num_rows, num_nodes, crc, plain_reads, plain_adds : as of `Hag`.
    column, weight : i4[num_symbols], i4 or None, the column and the multiplicity that each symbol
        below the merges is.
    same : i4[num_rows], the distinct row that each row is.
    pairs : i4[M, 2], the two symbols of each merge, both before it.
    counts : i4[M], rows counted for each merge, non-increasing.
    applied : i4[M], distinct rows it was applied to; at least `counts`, more where rows above a
        limit were not counted.
    ptr, symbols : i8[D + 1], i4, CSR of the distinct rows after all merges.
    """

    num_rows: int
    num_nodes: int
    crc: int
    plain_reads: int
    plain_adds: int
    column: NDArray[np.int32]
    weight: NDArray[np.int32] | None
    same: NDArray[np.int32]
    pairs: NDArray[np.int32]
    counts: NDArray[np.int32]
    applied: NDArray[np.int32]
    ptr: NDArray[np.int64]
    symbols: NDArray[np.int32]

    @property
    def num_symbols(self) -> int:
        """Symbols that are columns with a multiplicity."""
        return len(self.column)

    def twins(self) -> NDArray[np.int32]:
        """Rows equal to each distinct row."""
        return np.bincount(self.same, minlength=len(self.ptr) - 1).astype(np.int32)

    def entries(self) -> NDArray[np.int64]:
        """Entries of each distinct row before any merge, i8[D]."""
        return _entries(self.pairs, self.num_symbols, self.ptr, self.symbols)


def search(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    num_nodes: int | None = None,
    *,
    settings: Settings | None = None,
    threads: int = 1,
) -> Merges:
    """Search a CSR; `stockpot.stages.hag.search.shape` makes a HAG of what was found.

    Where the model also aggregates a node itself, give the CSR with the diagonal: rows of a clique
    are equal then.

    Parameters
    ----------
    indptr, indices : i8 | i4 [R + 1], i8 | i4 [E]; repeated columns are multiplicities, shared
        where they are equal.
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


def _search_components(
    work: Prepared, how: Settings, threads: int
) -> tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]
]:
    """Merges of all components by falling count, and the rows after all of them."""
    lists_ptr, lists, row_ends, column_ends = (
        work.lists_ptr,
        work.lists,
        work.row_ends,
        work.column_ends,
    )
    most, first = how.most(work.num_nodes), len(work.degree)
    groups = _groups(lists_ptr[row_ends])

    def one(group: tuple[int, int]) -> tuple[NDArray[np.int32], ...]:
        (r0, r1), (s0, s1) = row_ends[list(group)], column_ends[list(group)]
        low, high = lists_ptr[r0], lists_ptr[r1]
        lists[low:high] -= s0
        ptr, held = lists_ptr[r0 : r1 + 1] - low, lists[low:high]
        t_ptr, t_held = work.t_ptr[s0 : s1 + 1] - low, work.t_lists[low:high] - r0
        return merge_lists(ptr, held, t_ptr, t_held, how.min_count, most, how.row_limit)

    if threads == 1 or len(groups) == 1:
        found = [one(group) for group in groups]
    else:
        found = list(in_order(one, groups, threads))
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
    """Runs of components of `GROUP` entries and more, the last excepted; `ends` are their entries,
    summed up.
    """
    out, low = [], 0
    while low < len(ends) - 1:
        high = min(len(ends) - 1, int(np.searchsorted(ends, ends[low] + GROUP)))
        out.append((low, high))
        low = high
    return out


@njit(cache=True, nogil=True)
def _rename(
    ptr: NDArray[np.int64],
    size: NDArray[np.int32],
    lists: NDArray[np.int32],
    names: NDArray[np.int32],
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
    """All distinct rows after the merges: what was searched, and the entries that were too rare for
    it.
    """
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


@njit(cache=True, nogil=True)
def _entries(
    pairs: NDArray[np.int32], first: int, ptr: NDArray[np.int64], symbols: NDArray[np.int32]
) -> NDArray[np.int64]:
    width = np.ones(first + len(pairs), np.int64)
    for i in range(len(pairs)):
        width[first + i] = width[pairs[i, 0]] + width[pairs[i, 1]]
    out = np.zeros(len(ptr) - 1, np.int64)
    for r in range(len(out)):
        for i in range(ptr[r], ptr[r + 1]):
            out[r] += width[symbols[i]]
    return out
