"""A floor under the reads of every HAG of a CSR, from the counts of pairs alone: the cheap way to say no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fewest_reads"]

_EFFORT = 4
"""Entries looked at for each entry of the CSR, about; columns are sampled where counting all pairs would take more."""


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
    """Reads that remain of the live rows whatever is merged: exact floor, or its estimate from every n-th column.

    What reads column a directly, node or result, serves at most as many rows as hold both a and its best partner, or
    one; and a row that shares anything reads an aggregation node. A column without a pair of `min_count` rows is read
    by every row that holds it.

    Parameters
    ----------
    ptr, lists, t_ptr, t_lists, min_count, limit : as of `stages.hag.greedy.merge_lists`, nothing is overwritten.
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
