"""One CSR per graph: rows are destinations, columns sorted, no self-loops, no duplicates; every edge accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Csr", "build_csr", "frozen", "row_sums", "transpose"]


@dataclass(frozen=True)
class Csr:
    """`indptr` i8[N+1], `indices` i4[E], `weight` f4[E] or None; stored self-loops dropped and entries merged away:
    entries + merged = stored edges without loops, twice that where undirected.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    self_loops_dropped: int
    duplicates_merged: int


@njit(cache=True)
def _count(source: NDArray[np.int32], target: NDArray[np.int32], both: bool, indptr: NDArray[np.int64]) -> int:
    loops = 0
    for e in range(len(source)):
        if source[e] == target[e]:
            loops += 1
            continue
        indptr[target[e] + 1] += 1
        if both:
            indptr[source[e] + 1] += 1
    for i in range(len(indptr) - 1):
        indptr[i + 1] += indptr[i]
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
def _sort_and_merge(indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float32]) -> int:
    """Sort each row and merge equal columns in place, their values summed in stored order; returns the new length."""
    weighted = len(values) > 0
    end, start = 0, indptr[0]
    for i in range(len(indptr) - 1):
        stop = indptr[i + 1]
        if weighted:
            order = np.argsort(indices[start:stop], kind="mergesort")
            columns, given = indices[start:stop][order], values[start:stop][order]
        else:
            columns, given = np.sort(indices[start:stop]), values
        k = 0
        while k < len(columns):
            column, total = columns[k], 0.0
            while k < len(columns) and columns[k] == column:
                if weighted:
                    total += given[k]
                k += 1
            indices[end] = column
            if weighted:
                values[end] = total
            end += 1
        start = stop
        indptr[i + 1] = end
    return end


def build_csr(
    num_nodes: int,
    source: NDArray[np.int32],
    target: NDArray[np.int32],
    weight: NDArray[np.float32] | None,
    *,
    undirected: bool,
) -> Csr:
    """CSR of a stored edge list.

    Parameters
    ----------
    source, target : i4[E], messages go from source to target; ids checked.
    weight : f4[E] or None.
    undirected : every edge is taken in both directions.

    Weights of entries that meet are summed in float64 in stored order, also those of an edge and its stored reverse:
    W + W^T where undirected, exactly symmetric. Without weights the pattern is 0/1.

    Returns
    -------
    Csr. O(E log(max degree)) time; 4 bytes an entry (8 weighted) and 16 a node beside the edge list.
    """
    given = np.empty(0, np.float32) if weight is None else weight
    indptr = np.zeros(num_nodes + 1, np.int64)
    loops = _count(source, target, undirected, indptr)
    total = int(indptr[-1])
    indices = np.empty(total, np.int32)
    values = np.empty(total if weight is not None else 0, np.float32)
    _scatter(source, target, given, undirected, indptr[:-1].copy(), indices, values)
    end = _sort_and_merge(indptr, indices, values)
    return Csr(indptr, indices[:end], values[:end] if weight is not None else None, int(loops), total - end)


@njit(cache=True)
def _transpose(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], t_indptr: NDArray[np.int64], t_indices: NDArray[np.int32]
) -> None:
    for k in range(len(indices)):
        t_indptr[indices[k] + 1] += 1
    for i in range(len(t_indptr) - 1):
        t_indptr[i + 1] += t_indptr[i]
    place = t_indptr[:-1].copy()
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            t_indices[place[indices[k]]] = i
            place[indices[k]] += 1


def transpose(indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(`t_indptr` i8[N+1], `t_indices` i4[E]): the transposed pattern, columns sorted. O(N + E)."""
    t_indptr, t_indices = np.zeros_like(indptr), np.empty_like(indices)
    _transpose(indptr, indices, t_indptr, t_indices)
    return t_indptr, t_indices


def frozen(values: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: stored and computed arrays then share one compiled kernel."""
    view = values.view()
    view.flags.writeable = False
    return view


@njit(cache=True, nogil=True)
def _row_sums(indptr: NDArray[np.integer[Any]], weight: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    total, before, k = 0.0, 0.0, 0
    for i in range(len(out)):
        while k < indptr[i + 1]:
            total += weight[k]
            k += 1
        out[i] = total - before
        before = total


def row_sums(indptr: NDArray[np.integer[Any]], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of the weights of each row, as the difference of running sums in float64; an empty row is 0.

    Parameters
    ----------
    indptr : i8|i4[N + 1], from 0.
    weight : f4[E]

    Returns
    -------
    f8[N]. O(N + E) time and no more memory than the result: the running sums as an array would be twice the weights.
    """
    out = np.empty(len(indptr) - 1, np.float64)
    _row_sums(frozen(indptr), frozen(weight), out)
    return out
