"""Entries of a matrix dealt to files by range of rows, so that each range can be made in memory by
itself.

A file holds the entries of its rows in the order they were given: (row, column) as i4, and the bits
of the weight.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.ingest.source_data import EdgeBlock

__all__ = ["Buckets", "RawFile", "Rows", "frozen", "merge_row", "row_ranges"]


def frozen(values: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: stored and computed arrays then share one compiled kernel."""
    view = values.view()
    view.flags.writeable = False
    return view


def row_ranges(indptr: NDArray[np.int64], capacity: int, longest: int) -> NDArray[np.int64]:
    """Bounds of ranges of rows that hold at most `capacity` entries; a row of more than `longest`
    stands alone.

    Parameters
    ----------
    indptr : i8[N+1], rising from 0.
    longest : at most `capacity`.

    Returns
    -------
    i8[K+1], from 0 to N. O(N + K log N).
    """
    nodes = len(indptr) - 1
    bounds = [0]
    for long in [*np.flatnonzero(indptr[1:] - indptr[:-1] > longest).tolist(), nodes]:
        while bounds[-1] < long:
            at = int(np.searchsorted(indptr, indptr[bounds[-1]] + capacity, side="right")) - 1
            bounds.append(min(at, long))
        if long < nodes:
            bounds.append(long + 1)
    return np.array(bounds, np.int64)


class RawFile:
    """Values appended to a file, then seen as one read-only array by memory map."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self._file: IO[bytes] = path.open("wb")

    def append(self, values: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8).data)

    def values(self) -> NDArray[Any]:
        """All that was appended, flat; nothing can be appended any more."""
        self._file.close()
        if self._path.stat().st_size == 0:
            return np.empty(0, self._dtype)
        return np.memmap(self._path, self._dtype, "r").view(np.ndarray)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Rows:
    """Finished rows, appended to files."""

    def __init__(self, folder: Path, weighted: bool) -> None:
        self._indices = RawFile(folder / "indices", np.int32)
        self._weight = RawFile(folder / "weight", np.float32) if weighted else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._indices.__exit__()
        if self._weight is not None:
            self._weight.__exit__()

    def append(self, indices: NDArray[np.int32], weight: NDArray[np.float32]) -> None:
        self._indices.append(indices)
        if self._weight is not None:
            self._weight.append(weight)

    def indices(self) -> NDArray[np.int32]:
        return self._indices.values()

    def weight(self) -> NDArray[np.float32] | None:
        return None if self._weight is None else self._weight.values()


class Buckets:
    """One file a range of rows.

    Parameters
    ----------
    bounds : i8[K+1], see `row_ranges`.
    """

    def __init__(self, folder: Path, bounds: NDArray[np.int64], weighted: bool) -> None:
        self._folder, self._bounds, self.weighted = folder, bounds, weighted

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First row and the row after the last of each range, in order."""
        yield from zip(self._bounds[:-1].tolist(), self._bounds[1:].tolist(), strict=True)

    def rows(self) -> Rows:
        """Where finished rows go."""
        return Rows(self._folder, self.weighted)

    def deal(self, block: EdgeBlock, both: bool) -> None:
        """Append the entries of a block of edges to the files of their rows, self-loops left
        out.
        """
        weight = np.empty(0, np.float32) if block.weight is None else block.weight
        entries = np.empty(
            (len(block.source) * (2 if both else 1), 3 if self.weighted else 2), np.int32
        )
        ends = np.zeros(len(self._bounds), np.int64)
        inputs = [frozen(values) for values in (block.source, block.target, weight.view(np.int32))]
        _deal(inputs[0], inputs[1], inputs[2], both, self._bounds, entries, ends)
        for number in np.flatnonzero(ends[1:] > ends[:-1]).tolist():
            # Opened for each piece: there may be more ranges than a process may hold files open.
            with self._path(int(self._bounds[number])).open("ab") as file:
                file.write(entries[ends[number] : ends[number + 1]].data)

    def entries(self, first: int) -> NDArray[np.int32]:
        """i4[n, 2|3] of the range from row `first`, in the order they were dealt; a memory map."""
        width = 3 if self.weighted else 2
        path = self._path(first)
        if not path.exists():
            return frozen(np.empty((0, width), np.int32))
        return np.memmap(path, np.int32, "r").view(np.ndarray).reshape(-1, width)

    def drop(self, first: int) -> None:
        """Remove the file of a range that is done."""
        self._path(first).unlink(missing_ok=True)

    def _path(self, first: int) -> Path:
        return self._folder / f"rows-{first}"


@njit(cache=True)
def _range_of(bounds: NDArray[np.int64], row: int) -> int:
    low, high = 0, len(bounds) - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if bounds[middle] <= row:
            low = middle
        else:
            high = middle
    return low


@njit(cache=True)
def _deal(
    source: NDArray[np.int32],
    target: NDArray[np.int32],
    bits: NDArray[np.int32],
    both: bool,
    bounds: NDArray[np.int64],
    entries: NDArray[np.int32],
    ends: NDArray[np.int64],
) -> None:
    """Entries grouped by range, in their order within each; those of range r are `ends[r]:ends[r +
    1]`.

    At most 2^16 ranges: `csr.build_csr` makes at most 2 for each of 128 shares of the entries, and
    2 a long row, of which there are at most 3 to a share.
    """
    weighted = len(bits) > 0
    ranges = np.empty(len(entries), np.uint16)
    k = 0
    for e in range(len(source)):
        if source[e] != target[e]:
            ranges[k] = _range_of(bounds, target[e])
            ends[ranges[k] + 1] += 1
            k += 1
            if both:
                ranges[k] = _range_of(bounds, source[e])
                ends[ranges[k] + 1] += 1
                k += 1
    for r in range(len(ends) - 1):
        ends[r + 1] += ends[r]
    place = ends[:-1].copy()
    k = 0
    for e in range(len(source)):
        i, j = target[e], source[e]
        if i == j:
            continue
        at = place[ranges[k]]
        place[ranges[k]] += 1
        k += 1
        entries[at, 0], entries[at, 1] = i, j
        if weighted:
            entries[at, 2] = bits[e]
        if both:
            at = place[ranges[k]]
            place[ranges[k]] += 1
            k += 1
            entries[at, 0], entries[at, 1] = j, i
            if weighted:
                entries[at, 2] = bits[e]


def merge_row(
    entries: NDArray[np.int32], num_nodes: int, weighted: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Columns, sorted, and summed weights of one row too long to be sorted in memory; 17 bytes a
    node.
    """
    seen = np.zeros(num_nodes, np.bool_)
    totals = np.zeros(num_nodes if weighted else 0, np.float64)
    _add_row(entries, seen, totals)
    indices = np.empty(int(np.count_nonzero(seen)), np.int32)
    values = np.empty(len(indices) if weighted else 0, np.float32)
    _emit_row(seen, totals, indices, values)
    return indices, values


@njit(cache=True)
def _add_row(
    entries: NDArray[np.int32], seen: NDArray[np.bool_], totals: NDArray[np.float64]
) -> None:
    weighted = len(totals) > 0
    for e in range(len(entries)):
        seen[entries[e, 1]] = True
        if weighted:
            totals[entries[e, 1]] += entries[e, 2:3].view(np.float32)[0]


@njit(cache=True)
def _emit_row(
    seen: NDArray[np.bool_],
    totals: NDArray[np.float64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    weighted, end = len(totals) > 0, 0
    for j in range(len(seen)):
        if seen[j]:
            indices[end] = j
            if weighted:
                values[end] = totals[j]
            end += 1
