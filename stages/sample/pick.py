"""Which in-edges of each row a batch keeps: a function of (keys, row) alone, whoever samples it and
beside what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.sample.importance import row_scale
from stockpot.stages.sample.variates import edge_key, uniforms, variate

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALMOST_ONE", "poisson", "smallest"]

ALMOST_ONE = 1.0 - 1e-12
"""Probabilities from here on are 1: c = 1 / min pi times that minimum need not round to 1."""
_UNKNOWN = -1.0
_SHORT = 32
_SEVERAL = 2  # entries of the rows a node of the graph
_BLOCK = 1024


@njit(cache=True, nogil=True)
def poisson(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    rows: NDArray[np.int32],
    k: int,
    keys: tuple[int, int],
    cos: float,
    sin: float,
    slot: NDArray[np.int32],
    c: NDArray[np.float64],
    pi: NDArray[np.float64],
    memo: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """LABOR: entry t -> s is kept where r_t <= p_ts = min(1, c_s A_ts), or min(1, c_s pi_t) with
    importances.

    Parameters
    ----------
    indptr, indices, weight : i8[N + 1], i4[E], f4[E] (empty: all 1), the graph; row = destination.
    rows : i4[R], distinct.
    k : neighbours expected of a row; negative: all.
    keys, cos, sin : of `Drift`, of one layer; u8 each.
    slot, c, pi : of `importances`; all empty for LABOR-0, which needs none.
    memo : f8[N], all -1, where variates drift and are worth remembering; left all -1. Empty: not
        remembered.

    Returns
    -------
    out_ptr : i8[R + 1]. edge : i8[m], kept entries of the graph, in the order of `indices` inside a
        row.
    scale : f4[m], 1 / p; empty where it is the same for all entries of every row.

    Notes
    -----
    p is the probability that an entry is kept; those of weight 0 never are. O(entries of the rows).

    Where rows have several entries a node of the graph, all nodes are drawn first, to a byte: an
    entry is then looked at by one load and one comparison, and those few that pass are compared
    exactly. The result is the same.
    """
    first, second = keys
    even = weight.size == 0 and pi.size == 0
    room = 16
    most = 0
    looks = 0
    for i in range(rows.size):
        degree = indptr[rows[i] + 1] - indptr[rows[i]]
        most = max(most, degree)
        looks += degree
        room += degree if k < 0 else min(degree, k + k // 4 + 1)
    coarse = np.empty(0, np.uint8)
    finer = 0.0
    if even and k >= 0 and looks > _SEVERAL * (indptr.size - 1):
        highest = 0.0
        for i in range(rows.size):
            chance = row_scale(indptr[rows[i]], indptr[rows[i] + 1], 0, weight, slot, pi, k)
            if highest < chance < 1.0:
                highest = chance
        if highest > 0.0:
            finer = 254.0 / highest
            coarse = _coarse(indptr.size - 1, keys, cos, sin, finer, memo)
    edge = np.empty(room, np.int64)
    scale = np.empty(0 if even else room, np.float32)
    out_ptr = np.zeros(rows.size + 1, np.int64)
    drawn = np.empty(most if even and sin == 0.0 else 0, np.float64)
    at = 0
    end = 0
    for i in range(rows.size):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        d = stop - start
        if end + d > edge.size:
            edge = _grown(edge, end + d)
            if not even:
                scale = _grown(scale, edge.size)
        chance = c[i] if c.size else row_scale(start, stop, at, weight, slot, pi, k)
        if even and chance >= 1.0:
            for e in range(start, stop):
                edge[end] = e
                end += 1
        elif coarse.size:
            here = _passed(coarse, np.uint8(chance * finer), indices, start, stop, edge, end)
            for j in range(end, here):
                t = indices[edge[j]]
                r = memo[t] if memo.size else variate(first, second, cos, sin, t)
                edge[end] = edge[j]
                end += r <= chance
        elif even and sin == 0.0:
            uniforms(first, indices[start:stop], drawn)
            for j in range(d):
                edge[end] = start + j
                end += drawn[j] <= chance
        else:
            for e in range(start, stop):
                t = indices[e]
                if weight.size and weight[e] <= 0.0:
                    continue
                p = chance
                if pi.size:
                    p *= pi[slot[at + e - start]]
                elif weight.size:
                    p *= weight[e]
                if p >= ALMOST_ONE:
                    p = 1.0
                if memo.size:
                    r = memo[t]
                    if r == _UNKNOWN:
                        r = variate(first, second, cos, sin, t)
                        memo[t] = r
                else:
                    r = variate(first, second, cos, sin, t)
                if r <= p:
                    edge[end] = e
                    if not even:
                        scale[end] = 1.0 / p
                    end += 1
        at += d
        out_ptr[i + 1] = end
    if memo.size and coarse.size:
        memo[:] = _UNKNOWN
    elif memo.size:
        for i in range(rows.size):
            for e in range(indptr[rows[i]], indptr[rows[i] + 1]):
                memo[indices[e]] = _UNKNOWN
    return out_ptr, edge[:end].copy(), scale[: 0 if even else end].copy()


@njit(cache=True, nogil=True)
def _passed(
    coarse: NDArray[np.uint8],
    level: int,
    indices: NDArray[np.int32],
    start: int,
    stop: int,
    edge: NDArray[np.int64],
    end: int,
) -> int:
    """Append the entries start:stop whose source is at most `level` to edge[:end]; the new end.
    Unsigned: indices that cannot be negative are not looked at twice.
    """
    here = np.uint64(end)
    for e in range(np.uint64(start), np.uint64(stop)):
        edge[here] = e
        here += np.uint64(coarse[np.uint32(indices[e])] <= level)
    return int(here)


@njit(cache=True, nogil=True)
def _coarse(
    nodes: int,
    keys: tuple[int, int],
    cos: float,
    sin: float,
    finer: float,
    memo: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """u1[N], each node's variate times `finer`, rounded down, at most 255; `memo` is filled with
    the variates.
    """
    out = np.empty(nodes, np.uint8)
    first, second = keys
    if sin != 0.0:
        for t in range(nodes):
            r = variate(first, second, cos, sin, t)
            if memo.size:
                memo[t] = r
            out[t] = np.uint8(min(255.0, r * finer))
        return out
    some = np.empty(_BLOCK, np.int32)
    drawn = np.empty(_BLOCK, np.float64)
    for start in range(0, nodes, _BLOCK):
        size = min(_BLOCK, nodes - start)
        for j in range(size):
            some[j] = start + j
        uniforms(first, some[:size], drawn)
        for j in range(size):
            out[start + j] = np.uint8(np.int32(min(255.0, drawn[j] * finer)))
    return out


@njit(cache=True, nogil=True)
def smallest(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    rows: NDArray[np.int32],
    k: int,
    keys: tuple[int, int],
    cos: float,
    sin: float,
    by_edge: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The min(k, d) entries of a row with the smallest r / A; parameters and result as of
    `poisson`.

    Parameters
    ----------
    by_edge : True, neighbour sampling: a variate r_ts for every edge. False, sequential Poisson
        sampling (GraphBolt's LABOR-0): one r_t for all rows.

    Notes
    -----
    Without weights every set of k neighbours of a row is as likely. With weights it is priority
    sampling (Duffield, Lund & Thorup 2007): with tau the (k+1)-th smallest r / A, sums of entries
    by 1 / min(1, A tau) are without bias. Entries of weight 0 are never taken. A heap of k:
    O(entries of the rows + kept log k log d).
    """
    first, second = keys
    weighted = weight.size > 0
    room = 0
    most = 0
    for i in range(rows.size):
        d = indptr[rows[i] + 1] - indptr[rows[i]]
        room += d if k < 0 else min(d, k)
        most = max(most, d)
    size = most if k < 0 else min(most, k)
    edge = np.empty(room, np.int64)
    scale = np.empty(room if weighted else 0, np.float32)
    out_ptr = np.zeros(rows.size + 1, np.int64)
    drawn = np.empty(most, np.float64)
    value = np.empty(size, np.float64)
    place = np.empty(size, np.int64)
    end = 0
    for i in range(rows.size):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        one, two = (
            (edge_key(first, rows[i]), edge_key(second, rows[i])) if by_edge else (first, second)
        )
        wanted = size if k < 0 else k
        if stop - start <= wanted:
            for e in range(start, stop):
                if not weighted or weight[e] > 0.0:
                    edge[end] = e
                    if weighted:
                        scale[end] = 1.0
                    end += 1
            out_ptr[i + 1] = end
            continue
        held = 0
        tau = np.inf  # the smallest value left out
        if sin == 0.0:
            uniforms(one, indices[start:stop], drawn)
        else:
            for e in range(start, stop):
                drawn[e - start] = variate(one, two, cos, sin, indices[e])
        if not weighted:
            for e in range(start, start + wanted):
                _push(value, place, held, drawn[e - start], e)
                held += 1
            for e in range(start + wanted, stop):
                if drawn[e - start] < value[0]:
                    _replace(value, place, held, drawn[e - start], e)
            _ascending(place)
            edge[end : end + held] = place
            end += held
            out_ptr[i + 1] = end
            continue
        for e in range(start, stop):
            q = drawn[e - start]
            if weight[e] <= 0.0:
                continue
            q /= weight[e]
            if held < wanted:
                _push(value, place, held, q, e)
                held += 1
            elif q < value[0]:
                tau = value[0]
                _replace(value, place, held, q, e)
            elif q < tau:
                tau = q
        kept = place[:held]
        _ascending(kept)
        for j in range(held):
            edge[end] = kept[j]
            scale[end] = 1.0 / min(1.0, weight[kept[j]] * tau)
            end += 1
        out_ptr[i + 1] = end
    return out_ptr, edge[:end].copy(), scale[: end if weighted else 0].copy()


@njit(cache=True, nogil=True)
def _ascending(values: NDArray[np.int64]) -> None:
    """Sort a few integers by insertion, many as numpy does."""
    if values.size > _SHORT:
        values.sort()
        return
    for j in range(1, values.size):
        value = values[j]
        b = j - 1
        while b >= 0 and values[b] > value:
            values[b + 1] = values[b]
            b -= 1
        values[b + 1] = value


@njit(cache=True, nogil=True)
def _push(
    value: NDArray[np.float64], place: NDArray[np.int64], held: int, q: float, e: int
) -> None:
    """Into a heap with the largest value on top."""
    j = held
    while j > 0 and value[(j - 1) >> 1] < q:
        value[j], place[j] = value[(j - 1) >> 1], place[(j - 1) >> 1]
        j = (j - 1) >> 1
    value[j], place[j] = q, e


@njit(cache=True, nogil=True)
def _replace(
    value: NDArray[np.float64], place: NDArray[np.int64], held: int, q: float, e: int
) -> None:
    """The top of the heap by a smaller value."""
    j = 0
    while True:
        child = 2 * j + 1
        if child >= held:
            break
        if child + 1 < held and value[child + 1] > value[child]:
            child += 1
        if value[child] <= q:
            break
        value[j], place[j] = value[child], place[child]
        j = child
    value[j], place[j] = q, e


@njit(cache=True, nogil=True)
def _grown(values: NDArray[Any], size: int) -> NDArray[Any]:
    """A copy with room for `size` entries and half as many again."""
    out = np.empty(size + size // 2, values.dtype)
    out[: values.size] = values
    return out
