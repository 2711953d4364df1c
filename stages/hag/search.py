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
from stages.hag.greedy import merge_lists
from stages.hag.hag import csr_crc, merged
from stages.hag.merges import Merges
from stages.hag.working import distinct_rows, live, working_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Settings", "search"]

_GROUP = 1 << 17  # entries from which a run of components is searched alone
UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes
    ----------
    min_count : rows a pair must stand in to be merged. 3: a merge of 2 saves an addition and no read.
    capacity : most merges as a share of the columns; None: all there are.
    row_limit : rows of more columns that could be shared are merged, not counted: that costs the square of a row.

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
                f"a pair must stand in 2 rows at least to be shared, min_count is {self.min_count}", fix="min_count=3"
            )

    def most(self, num_nodes: int) -> int:
        """Most merges of a CSR with so many columns."""
        return UNLIMITED if self.capacity is None else min(UNLIMITED, int(self.capacity * num_nodes))


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
    num_rows = len(indptr) - 1
    columns = num_rows if num_nodes is None else num_nodes
    ptr, entries, times = merged(indptr, indices, columns)
    column, weight = np.arange(columns, dtype=np.int32), None
    if times is not None:
        ptr, entries, column, weight = _split_by_multiplicity(ptr, entries, times, columns)
    same, _, row_ptr, symbols = distinct_rows(ptr, entries)
    rows, degree = live(row_ptr, symbols, len(column), how.min_count)
    pairs, counts, applied, row_ptr, symbols = _search_components(row_ptr, symbols, rows, degree, how, columns, threads)
    return Merges(
        num_rows,
        columns,
        crc=csr_crc(indptr, indices),
        plain_reads=len(entries),
        plain_adds=int(np.maximum(ptr[1:] - ptr[:-1] - 1, 0).sum()),
        column=column,
        weight=weight,
        same=same,
        pairs=pairs,
        counts=counts,
        applied=applied,
        ptr=row_ptr,
        symbols=symbols,
    )


def _split_by_multiplicity(
    ptr: NDArray[np.int64], entries: NDArray[np.int32], times: NDArray[np.int32], columns: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """One symbol for each column and multiplicity, sorted in each row; the columns themselves come first."""
    several = times > 1
    keys, number = np.unique(entries[several].astype(np.int64) << 32 | times[several], return_inverse=True)
    symbols = entries.copy()
    symbols[several] = columns + number
    row = np.repeat(np.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
    symbols = symbols[np.lexsort((symbols, row))]
    column = np.r_[np.arange(columns), keys >> 32].astype(np.int32)
    weight = np.r_[np.ones(columns, np.int64), keys & 0xFFFFFFFF].astype(np.int32)
    return ptr, symbols, column, weight


def _search_components(
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    rows: NDArray[np.bool_],
    degree: NDArray[np.int32],
    how: Settings,
    columns: int,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Merges of all components by falling count, and the rows after all of them."""
    row_id, column_id, lists_ptr, lists, t_ptr, t_lists, row_ends, column_ends = working_rows(
        ptr, symbols, rows, degree
    )
    most, first = how.most(columns), len(degree)
    groups = _groups(lists_ptr[row_ends])

    def one(group: tuple[int, int]) -> tuple[NDArray[np.int32], ...]:
        (r0, r1), (s0, s1) = row_ends[list(group)], column_ends[list(group)]
        low, high = lists_ptr[r0], lists_ptr[r1]
        lists[low:high] -= s0
        return merge_lists(
            lists_ptr[r0 : r1 + 1] - low, lists[low:high], t_ptr[s0 : s1 + 1] - low, t_lists[low:high] - r0,
            how.min_count, most, how.row_limit,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, groups))
    counts = np.concatenate([np.empty(0, np.int32), *(part[1] for part in found)])
    order = np.argsort(
        -counts, kind="stable"
    )  # of equal ones, those of an earlier group and the earlier of a group first
    number = np.empty(len(order), np.int32)
    number[order] = first + np.arange(len(order), dtype=np.int32)
    pairs = np.empty((len(counts), 2), np.int32)
    size, start = np.zeros(len(row_id), np.int32), 0
    for (g0, g1), part in zip(groups, found, strict=True):
        (r0, r1), (s0, s1) = row_ends[[g0, g1]], column_ends[[g0, g1]]
        names = np.concatenate([column_id[s0:s1], number[start : start + len(part[1])]])
        pairs[start : start + len(part[1])] = names[part[0]]
        _rename(lists_ptr[r0 : r1 + 1], part[3], lists, names)
        size[r0:r1] = part[3]
        start += len(part[1])
    applied = np.concatenate([np.empty(0, np.int32), *(part[2] for part in found)])[order]
    return pairs[order], counts[order], applied, *_whole_rows(ptr, symbols, degree, row_id, lists_ptr, size, lists)


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
