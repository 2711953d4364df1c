"""Exact greedy merging of the pair of symbols that stands together in most rows, in memory linear
in the entries.

Algorithm 3 of arXiv 1906.03707: the most frequent pair {a, b} becomes a new symbol w in every row
that holds both, until no pair is left that is frequent enough. Instead of a table of pairs, each
symbol keeps its most frequent partner among those before it and the count of that pair when it was
last looked at. No count grows after its younger symbol was born, so those counts bound what each
symbol still has; the largest bound that proves true is the largest count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["merge_lists", "pop", "push"]

_UNBALANCED = 16  # from here on each entry of the shorter list is looked up in the longer one


@njit(cache=True, nogil=True)
def _best_partner(
    a: int,
    ptr: NDArray[np.int64],
    ends: NDArray[np.int64],
    lists: NDArray[np.int32],
    rows: NDArray[np.int32],
    count: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> tuple[int, int]:
    """Most `rows` that a shares with a symbol before it, and the smallest such symbol; rows are
    lists[ptr..ends].
    """
    num_seen = np.uint64(0)
    for v in rows:
        u = np.uint64(v)
        for i in range(
            np.uint64(ptr[u]), np.uint64(ends[u])
        ):  # unsigned: numba need not ask for negative indices
            x = np.uint32(lists[i])
            if x >= a:
                break
            if count[x] == 0:
                seen[num_seen] = x
                num_seen += np.uint64(1)
            count[x] += 1
    best, partner = 0, -1
    for i in range(num_seen):
        x = np.uint32(seen[i])
        if count[x] > best or (count[x] == best and x < partner):
            best, partner = count[x], int(x)
        count[x] = 0
    return best, partner


@njit(cache=True, nogil=True)
def _common(short: NDArray[np.int32], long: NDArray[np.int32], out: NDArray[np.int32]) -> int:
    """Intersection of two sorted lists into `out`; its length."""
    found, j = 0, 0
    if len(long) > _UNBALANCED * len(short):
        for u in short:
            j += np.searchsorted(long[j:], u)
            if j < len(long) and long[j] == u:
                out[found] = u
                found += 1
        return found
    for u in short:
        while j < len(long) and long[j] < u:
            j += 1
        if j < len(long) and long[j] == u:
            out[found] = u
            found += 1
    return found


@njit(cache=True, nogil=True)
def _without(values: NDArray[np.int32], gone: NDArray[np.int32]) -> int:
    """Remove a sorted subset from a sorted list, in place; the new length."""
    j, kept = 0, 0
    for u in values:
        if j < len(gone) and gone[j] == u:
            j += 1
        else:
            values[kept] = u
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def _replace(row: NDArray[np.int32], b: int, a: int, w: int) -> None:
    """Take b < a out of a sorted row and append w, the largest; the row is one shorter then."""
    at_b = np.searchsorted(row, b)
    at_a = at_b + np.searchsorted(row[at_b:], a)
    for i in range(at_b, at_a - 1):
        row[i] = row[i + 1]
    for i in range(at_a - 1, len(row) - 2):
        row[i] = row[i + 2]
    row[len(row) - 2] = w


@njit(cache=True, nogil=True)
def merge_lists(
    ptr: NDArray[np.int64],
    lists: NDArray[np.int32],
    t_ptr: NDArray[np.int64],
    t_lists: NDArray[np.int32],
    min_count: int,
    capacity: int,
    limit: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Merge the most frequent pair again and again. Exact but for rows above `limit`, which are
    merged and not counted.

    Each look at a symbol costs the rows that hold it, up to the symbol itself: give frequent
    symbols small ids. Oracle: the count of every merge is the largest there is, recounted by brute
    force.

    Parameters
    ----------
    ptr, lists : i8[R + 1], i4[E], symbols 0..S-1 of each row, sorted and unique. Overwritten by
        what each row is then: its first `size` symbols, sorted.
    t_ptr, t_lists : i8[S + 1], i4[E], rows of each symbol, sorted.
    min_count : at least 2; the count at which to stop is one less.
    capacity : most merges.
    limit : rows of more symbols are not counted.

    Returns
    -------
    pairs : i4[M, 2], symbols b < a of merge i, which is symbol S + i
    counts : i4[M], counted rows of each merge: non-increasing
    applied : i4[M], all rows in which it was applied
    size : i4[R]
    """
    num_rows, num_symbols, num_entries = len(ptr) - 1, len(t_ptr) - 1, len(lists)
    most = min(capacity, num_entries // min_count)
    size = (ptr[1:] - ptr[:-1]).astype(np.int32)
    ends = np.where(size > limit, ptr[:-1], ptr[1:])  # rows too long to count are empty here
    pool = np.empty(
        2 * num_entries, np.int32
    )  # rows of all symbols: a merge frees two entries for each it makes
    pool[:num_entries] = t_lists
    start = np.empty(num_symbols + most, np.int64)
    held = np.empty(num_symbols + most, np.int32)
    start[:num_symbols] = t_ptr[:-1]
    held[:num_symbols] = t_ptr[1:] - t_ptr[:-1]
    count, seen = np.zeros(num_symbols + most, np.int32), np.empty(num_symbols + most, np.int32)
    partner = np.full(num_symbols + most, -1, np.int32)
    below = np.empty(num_symbols + most, np.int32)
    head = np.full(num_rows + 1, -1, np.int32)
    pairs, counts, applied = (
        np.empty((most, 2), np.int32),
        np.empty(most, np.int32),
        np.empty(most, np.int32),
    )
    common = np.empty(num_rows, np.int32)
    end, merges, bound = num_entries, 0, 0
    for a in range(num_symbols):
        if held[a] >= min_count:
            rows = pool[start[a] : start[a] + held[a]]
            best, partner[a] = _best_partner(a, ptr, ends, lists, rows, count, seen)
            if best >= min_count:
                push(head, below, best, a)
                bound = max(bound, best)
    while bound >= min_count and merges < most:
        a = pop(head, below, bound)
        if a < 0:
            bound -= 1
            continue
        rows_a = pool[start[a] : start[a] + held[a]]
        counted = 0
        if partner[a] >= 0:
            b = partner[a]
            rows_b = pool[start[b] : start[b] + held[b]]
            found = (
                _common(rows_a, rows_b, common)
                if held[a] <= held[b]
                else _common(rows_b, rows_a, common)
            )
            for u in common[:found]:
                counted += ends[u] > ptr[u]
        if counted < bound:  # the pair is not what it was: look again
            best, partner[a] = _best_partner(a, ptr, ends, lists, rows_a, count, seen)
            if best >= min_count:
                push(head, below, best, a)
            continue
        w, shared = num_symbols + merges, common[:found]
        held[a] = _without(rows_a, shared)
        held[b] = _without(rows_b, shared)
        start[w], held[w] = end, found
        pool[end : end + found] = shared
        end += found
        for u in shared:
            _replace(lists[ptr[u] : ptr[u] + size[u]], b, a, w)
            size[u] -= 1
            if ends[u] > ptr[u]:
                ends[u] -= 1
        pairs[merges, 0], pairs[merges, 1], counts[merges], applied[merges] = b, a, counted, found
        merges += 1
        partner[a] = -1  # its bound still holds, its partner does not
        push(head, below, bound, a)
        rows = pool[start[w] : start[w] + held[w]]
        best, partner[w] = _best_partner(w, ptr, ends, lists, rows, count, seen)
        if best >= min_count:
            push(head, below, best, w)
    return pairs[:merges].copy(), counts[:merges].copy(), applied[:merges].copy(), size


@njit(cache=True, nogil=True)
def push(head: NDArray[np.int32], below: NDArray[np.int32], bound: int, symbol: int) -> None:
    """Put a symbol that is in no bucket on top of bucket `bound`.

    Parameters
    ----------
    head : i4[largest bound + 1], the symbol on top of each bucket, -1 where it is empty.
    below : i4[symbols], the next one in its bucket.
    """
    below[symbol] = head[bound]
    head[bound] = symbol


@njit(cache=True, nogil=True)
def pop(head: NDArray[np.int32], below: NDArray[np.int32], bound: int) -> int:
    """Take the symbol on top of bucket `bound`; -1 where it is empty."""
    symbol = head[bound]
    if symbol >= 0:
        head[bound] = below[symbol]
    return symbol
