"""Clusters of bounded size and number: what a graph too large to be partitioned is contracted
to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.partition.adjacency import neighbours, row_buffer, tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.partition.adjacency import Adjacency

__all__ = ["clusters"]


@njit(cache=True)
def _propagate(
    graph: Adjacency,
    label: NDArray[np.int32],
    size: NDArray[np.int32],
    room: int,
    count: NDArray[np.int32],
    row: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> int:
    moved = 0
    for i in range(len(label)):
        old, labels = label[i], tally(label, row, neighbours(graph, i, row), count, seen)
        best, most = old, count[old]
        for k in range(labels):
            c = seen[k]
            if (
                c != old
                and size[c] < room
                and (count[c] > most or (count[c] == most and size[c] < size[best]))
            ):
                best, most = c, count[c]
        for k in range(labels):
            count[seen[k]] = 0
        if best != old:
            size[old] -= 1
            size[best] += 1
            label[i] = best
            moved += 1
    return moved


@njit(cache=True)
def _favourites(
    graph: Adjacency,
    label: NDArray[np.int32],
    count: NDArray[np.int32],
    row: NDArray[np.int32],
    favourite: NDArray[np.int32],
    votes: NDArray[np.int32],
) -> None:
    """The other cluster that a single node of each cluster has most neighbours in; its own label
    where it has none.
    """
    for i in range(len(label)):
        own, length = label[i], neighbours(graph, i, row)
        for k in range(length):
            c = label[row[k]]
            count[c] += 1
            if c != own and count[c] > votes[own]:
                favourite[own], votes[own] = c, count[c]
        for k in range(length):
            count[label[row[k]]] = 0


@njit(cache=True)
def _leader(group: NDArray[np.int32], c: int) -> int:
    while group[c] != c:
        group[c] = group[group[c]]
        c = group[c]
    return c


@njit(cache=True)
def _unite(
    size: NDArray[np.int32],
    favourite: NDArray[np.int32],
    room: int,
    most: int,
    name: NDArray[np.int32],
    group: NDArray[np.int32],
) -> int:
    """Unite clusters until at most `most` are left; `name` of each label, from 0.

    First small ones with their favourite, up to `room` nodes, then those of the same favourite,
    then whatever follows each other: after that no two neighbours fit into `target`, so the bound
    holds. A group is led by one of its clusters, whose size becomes the group's.
    """
    target = int(-(-2 * np.sum(size) // (most - 1)))
    left = 0
    for c in range(len(size)):
        group[c] = c
        left += size[c] > 0
    for c in range(len(size)):
        if left <= most:
            break
        a, b = _leader(group, c), _leader(group, favourite[c])
        if a != b and 0 < size[a] < target and size[a] + size[b] <= room:
            group[a] = b
            size[b] += size[a]
            size[a] = 0
            left -= 1
    name[:] = -1  # by favourite: the group that is filled now
    for c in range(len(size)):
        if left <= most:
            break
        if group[c] != c or not 0 < size[c] < target:
            continue
        b = _leader(group, favourite[c])
        first = name[b]
        if first >= 0 and size[first] + size[c] <= target:
            group[c] = first
            size[first] += size[c]
            size[c] = 0
            left -= 1
        else:
            name[b] = c
    if left <= most:
        target = 0
    number, filled = -1, target + 1
    for c in range(len(size)):  # by leader: the number of the group
        if group[c] == c and size[c] > 0:
            if filled + size[c] > target:
                number += 1
                filled = 0
            name[c] = number
            filled += size[c]
    for c in range(len(size)):
        name[c] = name[_leader(group, c)]
    return number + 1


@njit(cache=True)
def _number(size: NDArray[np.int32], name: NDArray[np.int32]) -> int:
    number = 0
    for c in range(len(size)):
        name[c] = number
        number += size[c] > 0
    return number


@njit(cache=True)
def _rename(label: NDArray[np.int32], name: NDArray[np.int32]) -> None:
    for i in range(len(label)):
        label[i] = name[label[i]]


def clusters(
    graph: Adjacency, room: int, most: int, passes: int, done: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.int32], int]:
    """Cluster the nodes by size-constrained label propagation, and unite small clusters where there
    are too many.

    O(passes (N + E)) time; 24 bytes a node, the result included, and at most 8 for the longest row.

    Parameters
    ----------
    graph : the graph
    room : most nodes a cluster grows to
    most : clusters wanted at most, at least 2
    passes : over the edges; one more where clusters are united
    done : called after each pass

    Returns
    -------
    i4[N] cluster of each node, and their number: at most `most`. A united cluster has up to 2 N /
    `most` nodes.
    """
    nodes = len(graph.indptr) - 1
    label, size = np.arange(nodes, dtype=np.int32), np.ones(nodes, np.int32)
    row, count = row_buffer(graph), np.zeros(nodes, np.int32)
    seen, moved = np.empty_like(row), 1
    for _ in range(passes):
        if moved:
            moved = _propagate(graph, label, size, room, count, row, seen)
        done()
    name = np.empty(nodes, np.int32)
    number = int(_number(size, name))
    if number > most:
        favourite, votes = np.arange(nodes, dtype=np.int32), np.zeros(nodes, np.int32)
        _favourites(graph, label, count, row, favourite, votes)
        number = int(_unite(size, favourite, room, most, name, votes))
    _rename(label, name)
    return label, number
