"""Merging of neighbours in sorted rows, in rounds: time near linear in the entries, whatever the longest row.

Re-Pair (Larsson & Moffat 1999), as used for adjacency lists by CompressGraph (SIGMOD 2023), in rounds of falling counts
instead of one pair at a time. Only symbols that stand next to each other are counted, so it finds fewer merges than
`stockpot.stages.hag.greedy`, whose time grows with the square of the rows: for graphs of many and long hubs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["merge_neighbours"]


@njit(cache=True, nogil=True)
def _key(x: int, y: int) -> int:
    return (min(x, y) << 32) | max(x, y)


@njit(cache=True, nogil=True)
def _frequent(
    ptr: NDArray[np.int64], size: NDArray[np.int32], lists: NDArray[np.int32], min_count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Neighbouring pairs, sorted, whose count is at least half the largest and `min_count`, and their counts."""
    num_pairs = 0
    for u in range(len(size)):
        num_pairs += max(0, size[u] - 1)
    keys, at = np.empty(num_pairs, np.int64), 0
    for u in range(len(size)):
        for i in range(ptr[u], ptr[u] + size[u] - 1):
            keys[at] = _key(np.int64(lists[i]), np.int64(lists[i + 1]))
            at += 1
    keys.sort()
    largest, run = 0, 0
    for i in range(num_pairs):
        run = run + 1 if i and keys[i] == keys[i - 1] else 1
        largest = max(largest, run)
    least = max(min_count, (largest + 1) // 2)
    counts, found, run = np.empty(num_pairs // least + 1, np.int32), 0, 0
    for i in range(num_pairs):
        run += 1
        if i + 1 == num_pairs or keys[i + 1] != keys[i]:
            if run >= least:
                keys[found], counts[found] = keys[i], run
                found += 1
            run = 0
    return keys[:found].copy(), counts[:found].copy()


@njit(cache=True, nogil=True)
def _find(keys: NDArray[np.int64], x: int, y: int) -> int:
    key = _key(np.int64(x), np.int64(y))
    at = np.searchsorted(keys, key)
    return at if at < len(keys) and keys[at] == key else -1


@njit(cache=True, nogil=True)
def _chosen(row: NDArray[np.int32], keys: NDArray[np.int64], counts: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """The pair that each position begins, -1 for none: none overlap, the more frequent of two goes first."""
    here = _find(keys, row[0], row[1]) if len(row) > 1 else -1
    i = 0
    out[: len(row)] = -1
    while i < len(row) - 1:
        after = _find(keys, row[i + 1], row[i + 2]) if i < len(row) - 2 else -1
        if here >= 0 and (after < 0 or counts[after] <= counts[here]):
            out[i] = here
            i += 2
            here = _find(keys, row[i], row[i + 1]) if i < len(row) - 1 else -1
        else:
            i += 1
            here = after


@njit(cache=True, nogil=True)
def merge_neighbours(
    ptr: NDArray[np.int64], lists: NDArray[np.int32], num_symbols: int, min_count: int, capacity: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Merge frequent neighbours in rounds until none is left. O(E log E) a round, 12 bytes an entry.

    A round takes all pairs of at least half the largest count that do not overlap in a row, and drops those that are
    then below `min_count`.

    Parameters
    ----------
    ptr, lists, min_count, capacity : as of `stages.hag.greedy.merge_lists`; the rows' order decides what is found.
        Overwritten by what each row is then: its first `size` symbols, in no order.
    num_symbols : S

    Returns
    -------
    pairs, counts, applied, size : as of `merge_lists`; a count is at most that of any merge before it.
    """
    most = min(capacity, len(lists) // min_count)
    size = (ptr[1:] - ptr[:-1]).astype(np.int32)
    pairs, counts, applied = np.empty((most, 2), np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    longest = 1
    for u in range(len(size)):
        longest = max(longest, size[u])
    chosen = np.empty(longest, np.int32)
    merges = 0
    while merges < most:
        keys, often = _frequent(ptr, size, lists, min_count)
        times = np.zeros(len(keys), np.int32)
        for u in range(len(size)):
            _chosen(lists[ptr[u] : ptr[u] + size[u]], keys, often, chosen)
            for i in range(size[u]):
                if chosen[i] >= 0:
                    times[chosen[i]] += 1
        before = merges
        symbol = np.full(len(keys), -1, np.int32)
        for k in np.argsort(-times, kind="mergesort"):
            if times[k] < min_count or merges == most:
                break
            symbol[k] = num_symbols + merges
            pairs[merges, 0], pairs[merges, 1] = keys[k] >> 32, keys[k] & 0xFFFFFFFF
            applied[merges] = times[k]
            counts[merges] = min(times[k], counts[merges - 1]) if merges else times[k]
            merges += 1
        if merges == before:
            break
        for u in range(len(size)):
            row = lists[ptr[u] : ptr[u] + size[u]]
            _chosen(row, keys, often, chosen)
            kept, i = 0, 0
            while i < len(row):
                if chosen[i] >= 0 and symbol[chosen[i]] >= 0:
                    row[kept] = symbol[chosen[i]]
                    i += 2
                else:
                    row[kept] = row[i]
                    i += 1
                kept += 1
            size[u] = kept
    return pairs[:merges].copy(), counts[:merges].copy(), applied[:merges].copy(), size
