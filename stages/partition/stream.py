"""A partition in memory that grows with the nodes, not with the edges: those are only ever read in
order.

Clusters of bounded size are found by label propagation and contracted; METIS cuts the small
weighted graph into regions; passes over the edges improve their borders; METIS cuts the inside of
each region, one at a time, into parts; passes over the edges improve these. After Meyerhenke,
Sanders, Schulz (arXiv 1402.3281) and, for the passes, Nishimura, Ugander, "Restreaming Graph
Partitioning", KDD 2013.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.partition.contract import contract
from stockpot.stages.partition.flow import flow, level
from stockpot.stages.partition.label_propagation import clusters
from stockpot.stages.partition.regions import split_edges
from stockpot.stages.partition.solver import solve
from stockpot.stages.partition.stream_plan import stream_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.partition.adjacency import Adjacency

__all__ = ["IMBALANCE", "stream"]

IMBALANCE = 0.04
"""A part holds at most this share more than the mean, rounded up to whole nodes where that is
more."""
_REGION_IMBALANCE = 0.02
_PASSES = 5
_CLUSTERS = 32  # that fill a region


def stream(
    graph: Adjacency,
    parts: int,
    *,
    entries: int,
    seed: int,
    folder: Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    regions: int | None = None,
) -> NDArray[np.int32]:
    """K-way partition of A + A^T.

    About 18 sequential passes over the edges, O(N + E) time; memory as `stages.partition.stage`
    projects it; on disk 4 bytes for each entry inside a region. One thread, so the same result for
    any number of them; METIS may differ by machine.

    Parameters
    ----------
    graph : the graph, N >= 1
    parts : at least 1
    entries : of A + A^T, or more
    seed : of METIS
    folder : for files
    progress : called with steps done and all steps
    regions : number of regions, by default that of `stream_plan`

    Returns
    -------
    i4[N], in [0, parts); at most max(ceil(N / parts), floor(1.04 N / parts)) nodes in a part. Parts
    of a region are consecutive.
    """
    nodes = len(graph.indptr) - 1
    if parts >= nodes:
        return np.arange(nodes, dtype=np.int32)
    if parts == 1:
        return np.zeros(nodes, np.int32)
    wanted, most = stream_plan(entries)
    number = min(regions or wanted, parts)
    steps, done = 3 * _PASSES + 2 + number, 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, steps)

    bounds = np.arange(number + 1) * parts // number
    region = _regions(graph, np.diff(bounds), parts, most, seed, folder, step)
    if number == parts:
        progress(steps, steps)
        return _improved(graph, region, np.full(parts, _room(nodes, parts)), _PASSES)
    part = _inside(graph, region, bounds, most, seed, folder, step)
    del region
    part = _improved(graph, part, np.full(parts, _room(nodes, parts)), _PASSES, step)
    progress(steps, steps)
    return part


def _room(nodes: int, parts: int) -> int:
    return max(-(-nodes // parts), int((1 + IMBALANCE) * nodes / parts))


def _improved(
    graph: Adjacency,
    part: NDArray[np.int32],
    room: NDArray[np.int64],
    passes: int,
    step: Callable[[], None] = lambda: None,
) -> NDArray[np.int32]:
    flow(graph, part, room, passes, step)
    level(graph, part, room)
    return part


def _regions(
    graph: Adjacency,
    shares: NDArray[np.int64],
    parts: int,
    most: int,
    seed: int,
    folder: Path,
    step: Callable[[], None],
) -> NDArray[np.int32]:
    """Region of each node; region r has room for `shares[r]` of all `parts`."""
    nodes, number = len(graph.indptr) - 1, len(shares)
    few = max(64 * number, min(nodes // 8, most // 4))
    label, count = clusters(graph, max(1, nodes // (_CLUSTERS * number)), few, _PASSES, step)
    size = np.bincount(label, minlength=count)
    small = contract(graph, label, count, most // 2)
    step()
    even = bool((shares == shares[0]).all())
    region = solve(
        small.indptr,
        small.indices,
        number,
        seed=seed,
        folder=folder,
        node_weight=size,
        edge_weight=small.weight,
        shares=None if even else (shares / parts).tolist(),
    )[label]
    del label, small
    room = np.ceil((1 + _REGION_IMBALANCE) * nodes * shares / parts).astype(np.int64)
    return _improved(graph, region, room, _PASSES, step)


def _inside(
    graph: Adjacency,
    region: NDArray[np.int32],
    bounds: NDArray[np.int64],
    most: int,
    seed: int,
    folder: Path,
    step: Callable[[], None],
) -> NDArray[np.int32]:
    """Part of each node: region r is cut into parts bounds[r]:bounds[r + 1]."""
    split = split_edges(graph, region, len(bounds) - 1, folder / "regions")
    step()
    part = np.empty(len(region), np.int32)
    for r in range(len(bounds) - 1):
        ids = split.nodes(r)
        if len(ids):
            indptr, indices = split.graph(r, ids, most)
            inside = solve(
                indptr, indices, int(bounds[r + 1] - bounds[r]), seed=seed, folder=folder
            )
            part[ids] = bounds[r] + inside
        split.drop(r)
        step()
    return part
