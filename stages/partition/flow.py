"""Nodes flow to the part where most of their neighbours are, as far as it has room: one pass over
the edges, in order.

Every kernel is sequential, so its result does not depend on threads. Size-constrained label
propagation: Meyerhenke, Sanders, Schulz, "Partitioning Complex Networks via Size-constrained
Clustering", SEA 2014 (arXiv 1402.3281).
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

__all__ = ["cut_share", "flow", "level"]

_EMPTIER = (
    0.5  # neighbours that an empty part is worth more than a full one: it decides between equals
)


@njit(cache=True)
def _flow(
    graph: Adjacency,
    part: NDArray[np.int32],
    size: NDArray[np.int64],
    room: NDArray[np.int64],
    count: NDArray[np.int32],
    row: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> int:
    moved = 0
    for i in range(len(part)):
        old, parts = part[i], tally(part, row, neighbours(graph, i, row), count, seen)
        best, score = old, -np.inf
        if size[old] <= room[old]:
            score = count[old] - _EMPTIER * (size[old] - 1) / room[old]
        for k in range(parts):
            p = seen[k]
            if p != old and size[p] < room[p]:
                value = count[p] - _EMPTIER * size[p] / room[p]
                if value > score:
                    best, score = p, value
            count[p] = 0
        if best != old:
            size[old] -= 1
            size[best] += 1
            part[i] = best
            moved += 1
    return moved


def flow(
    graph: Adjacency,
    part: NDArray[np.int32],
    room: NDArray[np.int64],
    passes: int,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Improve `part` in place by up to `passes` passes; a part over its room only loses nodes.

    O(passes (N + E)) time; 12 bytes a part and at most 8 a node beside the arguments.

    Parameters
    ----------
    graph : the graph
    part : i4[N], in [0, parts)
    room : i8[parts], most nodes in each part, at least 1
    done : called after each pass
    """
    size = np.bincount(part, minlength=len(room))
    row, count = row_buffer(graph), np.zeros(len(room), np.int32)
    seen = np.empty(min(len(row), len(room)), np.int32)
    moved = 1
    for _ in range(passes):
        if moved:
            moved = _flow(graph, part, size, room, count, row, seen)
        done()


@njit(cache=True)
def _level(
    graph: Adjacency,
    part: NDArray[np.int32],
    size: NDArray[np.int64],
    room: NDArray[np.int64],
    count: NDArray[np.int32],
    row: NDArray[np.int32],
) -> None:
    parts = len(room)
    for i in range(len(part)):
        old = part[i]
        if size[old] <= room[old]:
            continue
        length, best = neighbours(graph, i, row), -1
        for k in range(length):
            p = part[row[k]]
            count[p] += 1
            if size[p] < room[p] and (best < 0 or count[p] > count[best]):
                best = p
        for k in range(length):
            count[part[row[k]]] = 0
        step = 1
        while (
            best < 0
            # a neighbour in the numbering is near in the graph; the rooms hold all nodes, so one is
            # found
        ):
            for p in (old - step, old + step):
                if best < 0 and 0 <= p < parts and size[p] < room[p]:
                    best = p
            step += 1
        size[old] -= 1
        size[best] += 1
        part[i] = best


def level(graph: Adjacency, part: NDArray[np.int32], room: NDArray[np.int64]) -> None:
    """Move nodes out of parts over their room, in place, to the part of most neighbours that has
    some, else a near one.

    O(N + E), but for `parts` steps a moved node where everything near is full; memory as `flow`.

    Parameters
    ----------
    graph, part, room : as for `flow`; `room` sums to at least N
    """
    size = np.bincount(part, minlength=len(room))
    _level(graph, part, size, room, np.zeros(len(room), np.int32), row_buffer(graph))


@njit(cache=True)
def _cut(graph: Adjacency, part: NDArray[np.int32], row: NDArray[np.int32]) -> tuple[int, int]:
    cut, total = 0, 0
    for i in range(len(part)):
        length = neighbours(graph, i, row)
        for k in range(length):
            cut += part[row[k]] != part[i]
        total += length
    return cut, total


def cut_share(graph: Adjacency, part: NDArray[np.int32]) -> float:
    """Share of the edges of A + A^T that join two parts, 0 where there are none. O(N + E);
    `edge_cut` is its oracle.
    """
    cut, total = _cut(graph, part, row_buffer(graph))
    return cut / total if total else 0.0
