"""Records of equal size from clusters drawn at random, so that no record is one region of the
graph.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.permutation import jitter, permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balanced", "mix_clusters"]


def balanced(outputs: int, cap: int) -> tuple[int, int]:
    """Number of records and the most outputs in one, when `outputs` are dealt as evenly as `cap`
    allows.

    >>> balanced(10, 4)
    (3, 4)
    >>> balanced(9, 4)
    (3, 3)
    """
    records = -(-outputs // cap)
    return records, -(-outputs // records)


def mix_clusters(
    sizes: NDArray[np.int64], records: int, cap: int, seed: int, most: int = 0
) -> NDArray[np.int32]:
    """Deal clusters to records: in seeded order, larger ones first, each to the record with the
    fewest outputs so far.

    A cluster that fits nowhere is cut, and its rest goes on to the next emptiest record; that
    happens only to clusters larger than `cap` and to a few of the last ones. O(clusters log
    records).

    Other seeds give other records: they order clusters of one size anew, and all but seed 0 also
    count every cluster as up to half smaller than it is, so that the dealing changes where no two
    clusters have one size.

    Parameters
    ----------
    sizes : i8[C], outputs of each cluster
    records, cap : as of `balanced`: records * cap >= sum(sizes)
    seed : of the order
    most : clusters (or pieces) in a record, unless only records that have so many have room left;
        0: any number. Every record gets a cluster where there are `records` of them

    Returns
    -------
    i4[sum(sizes)] : record of every output, in the order of the clusters
    """
    shuffled = permutation(len(sizes), seed)
    order = shuffled[np.argsort(-(sizes * jitter(len(sizes), seed))[shuffled], kind="stable")]
    ends = np.cumsum(sizes)
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
    heap = [(False, 0, record) for record in range(records)]
    held = [0] * records
    for cluster in order.tolist():
        at, end = int(ends[cluster] - sizes[cluster]), int(ends[cluster])
        while at < end:
            _, load, record = heap[0]
            taken = min(end - at, cap - load)
            out[at : at + taken] = record
            held[record] += 1
            full = load + taken == cap or 0 < most <= held[record]
            heapq.heapreplace(heap, (full, load + taken, record))
            at += taken
    return out
