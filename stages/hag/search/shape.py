"""Turns merges into the levels of a HAG: what is worth a row of the buffer stays, the rest
dissolves.

A node with one consumer dissolves always (reads fall, additions stay). Otherwise a node of `len`
entries and `freq` consumers saves (freq - 1) * (len - 1) - 1 reads, and stays if that is more than
`keep` (the filter of CompressGNN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.hag.hag import Hag
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.hag.search.search import Merges

__all__ = ["Outline", "Shape", "build", "outline"]

UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Shape:
    """How to make a HAG of merges.

    Attributes
    ----------
    capacity : most aggregation nodes taken from the search, twin rows first; -1: all.
    keep : reads that a node must save, and one more, to stay; -1 keeps those that save only
        additions too.
    depth : most levels; -1: any number.
    """

    capacity: int = -1
    keep: int = 0
    depth: int = -1


@dataclass(frozen=True, eq=False)
class Outline:
    """Which nodes stay, and the size of the HAG that they make, before it is written out.

    Attributes
    ----------
    pairs, ptr, symbols, times, node : the merges taken, distinct rows over them, how often each
        stands, its node or -1.
    depth : i4[nodes], level of each node from 1, 0 where it dissolves.
    flat : b1[nodes], nodes of the last level allowed that dissolve what else would be in it.
    reads, nodes, levels : entries, aggregation nodes and levels of the HAG.
    """

    pairs: NDArray[np.int32]
    ptr: NDArray[np.int64]
    symbols: NDArray[np.int32]
    times: NDArray[np.int32]
    node: NDArray[np.int32]
    depth: NDArray[np.int32]
    flat: NDArray[np.bool_]
    reads: int
    nodes: int
    levels: int


@njit(cache=True, nogil=True)
def _undo(
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    pairs: NDArray[np.int32],
    first: int,
    taken: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Rows with every merge from `taken` on replaced by the pair it was made of."""
    out_ptr = np.zeros(len(ptr), np.int64)
    stack = np.empty(len(pairs) + 2, np.int32)
    out = np.empty(0, np.int32)
    for fill in range(2):
        at = 0
        for r in range(len(ptr) - 1):
            for i in range(ptr[r], ptr[r + 1]):
                stack[0], top = symbols[i], 1
                while top > 0:
                    top -= 1
                    s = stack[top]
                    if s >= first + taken:
                        stack[top], stack[top + 1] = pairs[s - first, 0], pairs[s - first, 1]
                        top += 2
                    else:
                        if fill:
                            out[at] = s
                        at += 1
            out_ptr[r + 1] = at
        if not fill:
            out = np.empty(at, np.int32)
    return out_ptr, out


@njit(cache=True, nogil=True)
def _consumers(
    pairs: NDArray[np.int32],
    first: int,
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    times: NDArray[np.int32],
    node: NDArray[np.int32],
    num_nodes: int,
) -> NDArray[np.int64]:
    """References to each node by nodes and by results."""
    freq = np.zeros(num_nodes, np.int64)
    for i in range(len(pairs)):
        for s in pairs[i]:
            if s >= first:
                freq[s - first] += 1
    for r in range(len(ptr) - 1):
        if node[r] >= 0:
            freq[node[r]] = times[r]
        for i in range(ptr[r], ptr[r + 1]):
            if symbols[i] >= first:
                freq[symbols[i] - first] += 1 if node[r] >= 0 else times[r]
    return freq


@njit(cache=True, nogil=True)
def _decide(
    pairs: NDArray[np.int32],
    first: int,
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    times: NDArray[np.int32],
    node: NDArray[np.int32],
    row_of: NDArray[np.int32],
    keep: int,
    most: int,
) -> tuple[NDArray[np.int32], NDArray[np.bool_], int, int, int]:
    """Depth of every node that stays (0 where it dissolves), which are flat, reads, nodes and
    levels.

    Three passes: lengths after single consumers dissolve; from the last node to the first, where
    the number of consumers is final, what stays; from the first to the last, depths and what is too
    deep. O(entries).
    """
    num_nodes = len(pairs) + len(row_of)
    freq = _consumers(pairs, first, ptr, symbols, times, node, num_nodes)
    length = np.zeros(num_nodes, np.int64)
    stays = np.ones(num_nodes, np.bool_)
    for n in range(num_nodes):
        for s in _content(n, pairs, ptr, symbols, row_of):
            length[n] += length[s - first] if s >= first and freq[s - first] == 1 else 1
    for n in range(num_nodes - 1, -1, -1):
        stays[n] = freq[n] > 1 and (freq[n] - 1) * (length[n] - 1) - 1 > keep
        if not stays[n]:
            for s in _content(n, pairs, ptr, symbols, row_of):
                if s >= first:
                    freq[s - first] += freq[n] - 1
    depth, inner = np.zeros(num_nodes, np.int32), np.zeros(num_nodes, np.int32)
    flat = np.zeros(num_nodes, np.bool_)
    stack = np.empty(len(pairs) + 2, np.int32)
    reads, kept, levels = 0, 0, 0
    for n in range(num_nodes):
        length[n] = 0
        for s in _content(n, pairs, ptr, symbols, row_of):
            dissolved = s >= first and depth[s - first] == 0
            length[n] += length[s - first] if dissolved else 1
            if s >= first:
                inner[n] = max(inner[n], inner[s - first] if dissolved else depth[s - first])
        if not stays[n]:
            continue
        if (
            inner[n] >= most
        ):  # one level too many: dissolve the node, or what it holds of the last level
            more = 0
            for s in _content(n, pairs, ptr, symbols, row_of):
                stack[0], top = s, 1
                while top > 0:
                    top -= 1
                    m = stack[top] - first
                    if m < 0:
                        continue
                    if depth[m] == most:
                        more += length[m] - 1
                    elif depth[m] == 0 and inner[m] == most:
                        stack[top], stack[top + 1] = pairs[m, 0], pairs[m, 1]
                        top += 2
            if most == 0 or (freq[n] - 1) * (length[n] - 1) - 1 <= more:
                continue
            flat[n] = True
            length[n] += more
            inner[n] = most - 1
        depth[n] = inner[n] + 1
        levels = max(levels, depth[n])
        reads += length[n]
        kept += 1
    for r in range(len(ptr) - 1):
        if node[r] >= 0 and depth[node[r]] > 0:
            reads += times[r]
        else:
            for i in range(ptr[r], ptr[r + 1]):
                s = symbols[i] - first
                reads += times[r] * (length[s] if s >= 0 and depth[s] == 0 else 1)
    return depth, flat, reads, kept, levels


@njit(cache=True, nogil=True)
def _content(
    n: int,
    pairs: NDArray[np.int32],
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    row_of: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Symbols of a node: of a merge its pair, of a row its symbols."""
    if n < len(pairs):
        return pairs[n]
    r = row_of[n - len(pairs)]
    return symbols[ptr[r] : ptr[r + 1]]


def outline(merges: Merges, shape: Shape) -> Outline:
    """Which nodes stay under a shape, and the counts a cost model asks for. O(entries)."""
    times = merges.twins()
    ptr, symbols, first = merges.ptr, merges.symbols, merges.num_symbols
    twin = np.flatnonzero((times > 1) & (np.diff(ptr) > 1))
    capacity = UNLIMITED if shape.capacity < 0 else shape.capacity
    if len(twin) > capacity:
        gain = (times[twin].astype(np.int64) - 1) * (merges.entries()[twin] - 1)
        twin = np.sort(twin[np.argsort(-gain, kind="stable")[:capacity]])
    taken = min(len(merges.pairs), capacity - len(twin))
    if taken < len(merges.pairs):
        ptr, symbols = _undo(ptr, symbols, merges.pairs, first, taken)
    pairs = merges.pairs[:taken]
    node = np.full(len(times), -1, np.int32)
    node[twin] = taken + np.arange(len(twin), dtype=np.int32)
    most = UNLIMITED if shape.depth < 0 else shape.depth
    found = _decide(
        pairs, first, ptr, symbols, times, node, twin.astype(np.int32), shape.keep, most
    )
    return Outline(pairs, ptr, symbols, times, node, *found)


@njit(cache=True, nogil=True)
def _write(
    start: int,
    at: int,
    keys: NDArray[np.int64],
    place: NDArray[np.int64],
    pairs: NDArray[np.int32],
    first: int,
    depth: NDArray[np.int32],
    dissolve: int,
    stack: NDArray[np.int32],
) -> int:
    """Write what one symbol is, nodes of depth 0 or `dissolve` taken apart; the position after
    it.
    """
    stack[0], top = start, 1
    while top > 0:
        top -= 1
        s = stack[top]
        if s >= first and (depth[s - first] == 0 or depth[s - first] == dissolve):
            stack[top], stack[top + 1] = pairs[s - first, 0], pairs[s - first, 1]
            top += 2
        else:
            keys[at] = place[s]
            at += 1
    return at


@njit(cache=True, nogil=True)
def _levels(
    order: NDArray[np.int64],
    place: NDArray[np.int64],
    pairs: NDArray[np.int32],
    first: int,
    ptr: NDArray[np.int64],
    symbols: NDArray[np.int32],
    row_of: NDArray[np.int32],
    depth: NDArray[np.int32],
    flat: NDArray[np.bool_],
    same: NDArray[np.int32],
    node: NDArray[np.int32],
    reads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row pointers of the nodes and of the results, and the entries of both as `place` values,
    sorted in each row.
    """
    keys, at = np.empty(reads, np.int64), 0
    stack = np.empty(len(pairs) + 2, np.int32)
    indptr = np.zeros(len(order) + 1, np.int64)
    for i, n in enumerate(order):
        dissolve = depth[n] if flat[n] else -1
        for s in _content(n, pairs, ptr, symbols, row_of):
            at = _write(s, at, keys, place, pairs, first, depth, dissolve, stack)
        indptr[i + 1] = at
        keys[indptr[i] : at].sort()
    out_indptr = np.zeros(len(same) + 1, np.int64)
    out_indptr[0] = at
    for u, r in enumerate(same):
        if node[r] >= 0 and depth[node[r]] > 0:
            keys[at] = place[first + node[r]]
            at += 1
        else:
            for i in range(ptr[r], ptr[r + 1]):
                at = _write(symbols[i], at, keys, place, pairs, first, depth, -1, stack)
        out_indptr[u + 1] = at
        keys[out_indptr[u] : at].sort()
    return indptr, out_indptr, keys[:at]


def build(merges: Merges, plan: Outline) -> Hag:
    """Write the HAG that an outline describes. O(entries log row).

    Equivalence is what tests prove of it: `stockpot.stages.hag.hag.cover` gives back the CSR.
    """
    first = merges.num_symbols
    order = np.flatnonzero(plan.depth)
    order = order[np.argsort(plan.depth[order], kind="stable")]
    weight = np.ones(first, np.int64) if merges.weight is None else merges.weight.astype(np.int64)
    place = np.zeros(
        first + len(plan.depth), np.int64
    )  # row of the buffer and multiplicity, as one number to sort by
    place[:first] = (merges.column.astype(np.int64) << 32) | weight
    place[first + order] = ((merges.num_nodes + np.arange(len(order), dtype=np.int64)) << 32) | 1
    row_of = np.empty(len(plan.depth) - len(plan.pairs), np.int32)
    twin = np.flatnonzero(plan.node >= 0)
    row_of[plan.node[twin] - len(plan.pairs)] = twin
    indptr, out_indptr, keys = _levels(
        order, place, plan.pairs, first, plan.ptr, plan.symbols, row_of, plan.depth, plan.flat,
        merges.same, plan.node, plan.reads
    )  # fmt: skip
    columns, times = (keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32)
    split = int(indptr[-1])
    return Hag(
        merges.num_rows,
        merges.num_nodes,
        level_ptr=np.searchsorted(plan.depth[order], np.arange(1, plan.levels + 2)).astype(
            np.int64
        ),
        indptr=indptr,
        indices=columns[:split].copy(),
        out_indptr=out_indptr - split,
        out_indices=columns[split:].copy(),
        weight=None if (times[:split] == 1).all() else times[:split].copy(),
        out_weight=None if (times[split:] == 1).all() else times[split:].copy(),
        crc=merges.crc,
        plain_reads=merges.plain_reads,
        plain_adds=merges.plain_adds,
    )
