"""The subgraph inside each region, written to disk in one pass over the edges and read back one at
a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.partition.adjacency import neighbours, row_buffer
from stockpot.stages.partition.contract import keep_below, kept

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.partition.adjacency import Adjacency

__all__ = ["Regions", "split_edges"]

_CHUNK = 1 << 20  # entries sorted by region in memory; 4 bytes each


@njit(cache=True)
def _local_ids(
    region: NDArray[np.int32], size: NDArray[np.int64], local: NDArray[np.int32]
) -> None:
    size[:] = 0
    for i in range(len(region)):
        local[i] = size[region[i]]
        size[region[i]] += 1


@njit(cache=True)
def _chunk(
    graph: Adjacency,
    region: NDArray[np.int32],
    local: NDArray[np.int32],
    start: int,
    stop: int,
    row: NDArray[np.int32],
    degree: NDArray[np.int32],
    end: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    """Entries inside regions of rows start:stop, by region and then row; `end` of each region in
    `out`.
    """
    end[:] = 0
    for i in range(start, stop):
        degree[i] = 0
        for k in range(neighbours(graph, i, row)):
            degree[i] += region[row[k]] == region[i]
        end[region[i]] += degree[i]
    total = 0
    for r in range(len(end)):
        total += end[r]
        end[r] = total - end[r]
    for i in range(start, stop):
        r = region[i]
        for k in range(neighbours(graph, i, row)):
            if region[row[k]] == r:
                out[end[r]] = local[row[k]]
                end[r] += 1


@njit(cache=True)
def _thin(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    below: int,
    out_ptr: NDArray[np.int64],
    out: NDArray[np.int32],
) -> int:
    """Keep a hashed sample of the edges, both directions or none; with an empty `out` they are only
    counted.
    """
    total = 0
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if kept(min(i, j), max(i, j), below):
                if len(out) > 0:
                    out[total] = j
                total += 1
        out_ptr[i + 1] = total
    return total


class Regions:
    """Subgraphs of the regions of a graph, on disk.

    Attributes
    ----------
    region : i4[N], in [0, number)
    degree : i4[N], neighbours of each node inside its region
    """

    def __init__(self, region: NDArray[np.int32], degree: NDArray[np.int32], folder: Path) -> None:
        self.region = region
        self.degree = degree
        self._folder = folder

    def nodes(self, r: int) -> NDArray[np.int64]:
        """Ids of the nodes of region `r`, ascending."""
        return np.flatnonzero(self.region == r)

    def graph(
        self, r: int, ids: NDArray[np.int64], most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """CSR inside region `r`, rows and columns in the order of `ids`; of more than `most`
        entries a hashed sample.

        `indices` is a memory map where nothing is left out, else in memory, about `most` entries.
        """
        indptr = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(self.degree[ids], out=indptr[1:])
        if indptr[-1] == 0:
            return indptr, np.empty(0, np.int32)
        indices = np.memmap(self._folder / f"{r}.i4", np.int32, "r").view(np.ndarray)
        if len(indices) <= most:
            return indptr, indices
        below, thinned = keep_below(len(indices), most), np.zeros_like(indptr)
        out = np.empty(_thin(indptr, indices, below, thinned, np.empty(0, np.int32)), np.int32)
        _thin(indptr, indices, below, thinned, out)
        return thinned, out

    def drop(self, r: int) -> None:
        """Remove the file of region `r`."""
        (self._folder / f"{r}.i4").unlink(missing_ok=True)


def split_edges(graph: Adjacency, region: NDArray[np.int32], number: int, folder: Path) -> Regions:
    """Write the edges inside each region to `folder`: 4 bytes an entry on disk.

    One pass over the edges, O(N + E); 8 bytes a node, 8 MiB and a row in memory.

    Parameters
    ----------
    graph : the graph
    region : i4[N], in [0, number)
    folder : made, and emptied of earlier files
    """
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.i4"):
        old.unlink()
    nodes = len(region)
    local, degree = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    end = np.empty(number, np.int64)
    _local_ids(region, end, local)
    row, start = row_buffer(graph), 0
    out = np.empty(_CHUNK + len(row), np.int32)
    while start < nodes:
        stop = _rows(graph, start, _CHUNK)
        _chunk(graph, region, local, start, stop, row, degree, end, out)
        begin = 0
        for r in range(number):
            if end[r] > begin:
                with open(folder / f"{r}.i4", "ab") as file:
                    out[begin : end[r]].tofile(file)
            begin = int(end[r])
        start = stop
    return Regions(region, degree, folder)


def _rows(graph: Adjacency, start: int, most: int) -> int:
    """End of the longest run of rows from `start` with at most `most` entries, at least one row."""

    def end(indptr: NDArray[np.int64], entries: int) -> int:
        return int(np.searchsorted(indptr, indptr[start] + entries, side="right")) - 1

    if len(graph.t_indptr) == 0:
        stop = end(graph.indptr, most)
    else:
        stop = min(end(graph.indptr, most // 2), end(graph.t_indptr, most // 2))
    return max(stop, start + 1)
