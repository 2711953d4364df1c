"""One CSR per graph: rows are destinations, columns sorted, no self-loops, no duplicates; every
edge accounted for.

Edges are read in blocks, twice: to count the entries of every row, then to put each entry in its
row. Where not all rows fit in memory, ranges of rows that do are made one after another from files
(`stages.ingest.buckets`): the same entries in the same order, so the same bytes for any amount of
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest import csr_memory
from stockpot.stages.ingest.buckets import Buckets, frozen, merge_row, row_ranges
from stockpot.stages.ingest.csr_memory import entry_bytes, most_bytes, sort_bytes
from stockpot.stages.ingest.source_data import EdgeBlock
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Edges = Callable[[int], Iterator[EdgeBlock]]

__all__ = ["Csr", "build_csr", "frozen", "row_sums", "turned"]

_SHORT = 24  # rows up to this length are sorted by insertion


@dataclass(frozen=True)
class Csr:
    """`indptr` i8[N+1], `indices` i4[E], `weight` f4[E] or None; stored self-loops dropped and
    entries merged away: entries + merged = stored edges without loops, twice that where undirected.
    Not `in_memory`: memory maps of files.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    self_loops_dropped: int
    duplicates_merged: int
    in_memory: bool


def build_csr(
    edges: Edges,
    num_nodes: int,
    num_edges: int,
    *,
    undirected: bool,
    weighted: bool,
    room_bytes: int,
    folder: Path,
) -> Csr:
    """CSR of stored edges.

    Parameters
    ----------
    edges : gives all stored edges in blocks of at most so many, in order, each time it is called.
    undirected : every edge is taken in both directions.
    room_bytes : memory it may take beside 40 bytes a node; `csr_memory.least_bytes` at least.
    folder : an empty folder for files; arrays of the result may be memory maps of files in it.

    Weights of entries that meet are summed in float64 in stored order, also those of an edge and
    its stored reverse: W + W^T where undirected, exactly symmetric. Without weights the pattern is
    0/1.

    Returns
    -------
    Csr. O(E log(max degree)) time. What does not fit takes 8 bytes an entry (12 weighted) of disk,
    and the result.
    """
    room = room_bytes - csr_memory.BLOCK_BYTES * csr_memory.BLOCK_EDGES
    kept: list[EdgeBlock] | None = None
    if most_bytes(num_edges, undirected, weighted) <= room_bytes:
        # Reading can mean decompressing or parsing, so edges are kept for the second time.
        kept, room = list(edges(csr_memory.BLOCK_EDGES)), room - num_edges * (12 if weighted else 8)
    indptr, loops = np.zeros(num_nodes + 1, np.int64), 0
    for block in edges(csr_memory.BLOCK_EDGES) if kept is None else kept:
        loops += _count(frozen(block.source), frozen(block.target), undirected, indptr)
    longest = int(indptr.max())
    np.cumsum(indptr, out=indptr)
    total = int(indptr[-1])
    again = edges(csr_memory.BLOCK_EDGES) if kept is None else kept
    in_memory = entry_bytes(weighted) * total + sort_bytes(weighted) * longest <= room
    if in_memory:
        indices, weight = _make(again, indptr, undirected, weighted)
    else:
        # Half for the entries of a range, half to sort its longest row.
        capacity = max(room // (2 * entry_bytes(weighted)), -(-total // csr_memory.RANGES))
        longest = capacity * entry_bytes(weighted) // sort_bytes(weighted)
        buckets = Buckets(folder, row_ranges(indptr, capacity, longest), weighted)
        for block in again:
            buckets.deal(block, undirected)
        indices, weight = _make_ranges(buckets, indptr, longest)
    return Csr(indptr, indices, weight, loops, total - len(indices), in_memory)


def turned(csr: Csr) -> Edges:
    """Edges whose CSR is the transpose of `csr`, in blocks: an entry (i, j) as an edge from i to
    j.
    """

    def edges(most: int) -> Iterator[EdgeBlock]:
        for start in range(0, len(csr.indices), most):
            columns = csr.indices[start : start + most]
            rows = np.empty(len(columns), np.int32)
            _rows(csr.indptr, start, rows)
            yield EdgeBlock(rows, columns)

    return edges


def _make(
    edges: Iterable[EdgeBlock], indptr: NDArray[np.int64], undirected: bool, weighted: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """All rows in memory. `indptr` is that of all entries, and of the merged ones afterwards."""
    indices = np.empty(int(indptr[-1]), np.int32)
    values = np.empty(len(indices) if weighted else 0, np.float32)
    place = indptr[:-1].copy()
    for block in edges:
        given = values[:0] if block.weight is None else block.weight
        _scatter(
            frozen(block.source),
            frozen(block.target),
            frozen(given),
            undirected,
            place,
            indices,
            values,
        )
    end = _sort_and_merge(indptr, indices, values)
    return indices[:end], values[:end] if weighted else None


def _make_ranges(
    buckets: Buckets, indptr: NDArray[np.int64], longest: int
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Rows of one range after another, appended to files. `indptr` as in `_make`."""
    with buckets.rows() as out:
        begin, end = 0, 0
        for first, last in buckets.ranges():
            size, begin = int(indptr[last]) - begin, int(indptr[last])
            entries = buckets.entries(first)
            local = np.empty(last - first + 1, np.int64)
            local[0], local[1:] = 0, indptr[first + 1 : last + 1] - (begin - size)
            if last - first == 1 and size > longest:
                indices, values = merge_row(entries, len(indptr) - 1, buckets.weighted)
                local[1] = len(indices)
            else:
                indices = np.empty(size, np.int32)
                values = np.empty(size if buckets.weighted else 0, np.float32)
                _scatter_range(entries, first, local[:-1].copy(), indices, values)
                merged = _sort_and_merge(local, indices, values)
                indices, values = indices[:merged], values[:merged]
            indptr[first + 1 : last + 1] = local[1:] + end
            end += len(indices)
            out.append(indices, values)
            buckets.drop(first)
    return out.indices(), out.weight()


@njit(cache=True)
def _count(
    source: NDArray[np.int32], target: NDArray[np.int32], both: bool, indptr: NDArray[np.int64]
) -> int:
    """Add the entries of row i to `indptr[i + 1]`; returns the number of self-loops."""
    loops = 0
    for e in range(len(source)):
        if source[e] == target[e]:
            loops += 1
            continue
        indptr[target[e] + 1] += 1
        if both:
            indptr[source[e] + 1] += 1
    return loops


@njit(cache=True)
def _scatter(
    source: NDArray[np.int32],
    target: NDArray[np.int32],
    weight: NDArray[np.float32],
    both: bool,
    place: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    weighted = len(weight) > 0
    for e in range(len(source)):
        i, j = target[e], source[e]
        if i == j:
            continue
        indices[place[i]] = j
        if weighted:
            values[place[i]] = weight[e]
        place[i] += 1
        if both:
            indices[place[j]] = i
            if weighted:
                values[place[j]] = weight[e]
            place[j] += 1


@njit(cache=True)
def _scatter_range(
    entries: NDArray[np.int32],
    first: int,
    place: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """As `_scatter`, of dealt entries (row, column[, bits of the weight]) of rows from `first`."""
    weighted = entries.shape[1] == 3
    bits = values.view(np.int32)
    for e in range(len(entries)):
        i = entries[e, 0] - first
        indices[place[i]] = entries[e, 1]
        if weighted:
            bits[place[i]] = entries[e, 2]
        place[i] += 1


@njit(cache=True)
def _sort_row(columns: NDArray[np.int32], given: NDArray[np.float32]) -> None:
    """Sort one row in place by column; entries of one column stay in their order."""
    n, weighted = len(columns), len(given) > 0
    rising = True
    for k in range(1, n):
        rising &= columns[k - 1] <= columns[k]
    if rising:
        return
    if n <= _SHORT:
        for k in range(1, n):
            column, at = columns[k], k
            value = given[k] if weighted else np.float32(0)
            while at > 0 and columns[at - 1] > column:
                columns[at] = columns[at - 1]
                if weighted:
                    given[at] = given[at - 1]
                at -= 1
            columns[at] = column
            if weighted:
                given[at] = value
    elif weighted:
        order = np.argsort(columns, kind="mergesort")
        columns[:] = columns[order]
        given[:] = given[order]
    else:
        columns.sort()


@njit(cache=True)
def _sort_and_merge(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float32]
) -> int:
    """Sort each row and merge equal columns in place, their values summed in stored order; returns
    the new length.
    """
    weighted = len(values) > 0
    end, start = 0, indptr[0]
    for i in range(len(indptr) - 1):
        stop = indptr[i + 1]
        _sort_row(indices[start:stop], values[start:stop] if weighted else values)
        k = start
        while k < stop:
            column, total = indices[k], 0.0
            while k < stop and indices[k] == column:
                if weighted:
                    total += values[k]
                k += 1
            indices[end] = column
            if weighted:
                values[end] = total
            end += 1
        start = stop
        indptr[i + 1] = end
    return end


@njit(cache=True)
def _rows(indptr: NDArray[np.int64], start: int, out: NDArray[np.int32]) -> None:
    """Row of each of the entries from `start` on."""
    i = np.searchsorted(indptr, start, side="right") - 1
    for k in range(len(out)):
        while indptr[i + 1] <= start + k:
            i += 1
        out[k] = i


@njit(cache=True, nogil=True)
def _row_sums(
    indptr: NDArray[np.integer[Any]], weight: NDArray[np.float32], out: NDArray[np.float64]
) -> None:
    total, before, k = 0.0, 0.0, 0
    for i in range(len(out)):
        while k < indptr[i + 1]:
            total += weight[k]
            k += 1
        out[i] = total - before
        before = total


def row_sums(indptr: NDArray[np.integer[Any]], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of the weights of each row, as the difference of running sums in float64; an empty row is
    0.

    Parameters
    ----------
    indptr : i8|i4[N + 1], from 0.
    weight : f4[E]

    Returns
    -------
    f8[N]. O(N + E) time and no more memory than the result: the running sums as an array would be
    twice the weights.
    """
    out = np.empty(len(indptr) - 1, np.float64)
    _row_sums(frozen(indptr), frozen(weight), out)
    return out
