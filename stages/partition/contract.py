"""The graph of clusters, from a sample of the edges between them that never exceeds what was asked
for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.partition.adjacency import neighbours, row_buffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.partition.adjacency import Adjacency

__all__ = ["Contracted", "contract", "keep_below", "kept"]

_WHOLE = 1 << 32


class Contracted(NamedTuple):
    """CSR of the clusters, symmetric, no self-loops: `indptr` i8[C + 1], `indices` i4[E'], `weight`
    i8[E'] edges.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weight: NDArray[np.int64]


@njit(cache=True)
def _hash(i: int, j: int) -> np.int64:
    """32 bits that look random, the same everywhere (the finaliser of splitmix64)."""
    h = np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(j)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(h >> np.uint64(32))


@njit(cache=True)
def kept(i: int, j: int, below: int) -> bool:
    """Whether the edge (i, j), i < j, is in the hashed sample of share `below` / 2^32."""
    return bool(_hash(i, j) < below)


def keep_below(found: int, most: int) -> int:
    """Threshold of `kept` that lets about `most` of `found` edges pass, all where they are not
    more.
    """
    return _WHOLE if found <= most else int(most / found * _WHOLE)


@njit(cache=True)
def _count(graph: Adjacency, label: NDArray[np.int32], row: NDArray[np.int32]) -> int:
    found = 0
    for i in range(len(label)):
        for k in range(neighbours(graph, i, row)):
            found += row[k] > i and label[row[k]] != label[i]
    return found


@njit(cache=True)
def _sample(
    graph: Adjacency,
    label: NDArray[np.int32],
    number: int,
    below: int,
    row: NDArray[np.int32],
    keys: NDArray[np.int64],
) -> int:
    found = 0
    for i in range(len(label)):
        a = np.int64(label[i])
        for k in range(neighbours(graph, i, row)):
            b = np.int64(label[row[k]])
            if row[k] > i and b != a and kept(i, row[k], below) and found < len(keys):
                keys[found] = min(a, b) * number + max(a, b)
                found += 1
    return found


@njit(cache=True)
def _merge(keys: NDArray[np.int64], times: NDArray[np.int32]) -> int:
    """Sorted keys to distinct ones with their number of times, in place; how many there are."""
    distinct = 0
    for k in range(len(keys)):
        if k and keys[k] == keys[distinct - 1]:
            times[distinct - 1] += 1
        else:
            keys[distinct] = keys[k]
            times[distinct] = 1
            distinct += 1
    return distinct


@njit(cache=True)
def _both_ways(
    keys: NDArray[np.int64],
    times: NDArray[np.int32],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.int64],
) -> None:
    number = len(indptr) - 1
    for key in keys:
        indptr[key // number + 1] += 1
        indptr[key % number + 1] += 1
    for c in range(number):
        indptr[c + 1] += indptr[c]
    place = indptr[:-1].copy()
    for k in range(len(keys)):
        a, b = keys[k] // number, keys[k] % number
        indices[place[a]], weight[place[a]] = b, times[k]
        indices[place[b]], weight[place[b]] = a, times[k]
        place[a] += 1
        place[b] += 1


@njit(cache=True)
def _rank(keys: NDArray[np.int64], times: NDArray[np.int32]) -> NDArray[np.int64]:
    """By times, and in hashed order among equals."""
    out = np.empty(len(keys), np.int64)
    for k in range(len(keys)):
        out[k] = (np.int64(times[k]) << 32) | np.int64(_hash(keys[k], 0))
    return out


def contract(graph: Adjacency, label: NDArray[np.int32], number: int, most: int) -> Contracted:
    """Contract the clusters; where their graph is too large, a hashed sample of the edges, then its
    heaviest ones.

    Two passes over the edges, O(N + E + most log most) time; 64 bytes a pair kept, 16 a cluster,
    and a row.

    Parameters
    ----------
    graph : the graph
    label : i4[N], in [0, number)
    number : of clusters
    most : pairs of clusters kept at most; four times as many edges are sampled

    Returns
    -------
    Contracted, columns not sorted
    """
    row = row_buffer(graph)
    below = keep_below(int(_count(graph, label, row)), 4 * most)
    keys = np.empty(4 * most, np.int64)
    keys = keys[: _sample(graph, label, number, below, row, keys)]
    keys.sort()
    times = np.empty(len(keys), np.int32)
    pairs = int(_merge(keys, times))
    keys, times = keys[:pairs], times[:pairs]
    if pairs > most:
        rank = _rank(keys, times)
        heavy = rank >= np.partition(rank, pairs - most)[pairs - most]
        keys, times = keys[heavy], times[heavy]
        pairs = len(keys)
    indptr = np.zeros(number + 1, np.int64)
    indices, weight = np.empty(2 * pairs, np.int32), np.empty(2 * pairs, np.int64)
    _both_ways(keys, times, indptr, indices, weight)
    return Contracted(indptr, indices, weight)
