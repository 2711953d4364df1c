"""Local ids of a hop: new vertices in (block, id) order behind those already there, without a
sort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["collect", "forget", "mark", "relabel", "slots"]

NOWHERE = -1
_WAITING = -2
_SHORT = 24  # rows up to this length are sorted by insertion


@njit(cache=True, nogil=True)
def mark(
    indices: NDArray[np.int32],
    edge: NDArray[np.int64],
    rank: NDArray[np.int32],
    local: NDArray[np.int32],
    bits: NDArray[np.uint64],
) -> None:
    """Mark the sources of kept edges that have no local id yet.

    Parameters
    ----------
    edge : i8[m], entries of `indices`.
    rank : i4[N], position of every vertex in the order hops are sorted by; empty: its id.
    local : i4[N], local id or -1; those marked become -2.
    bits : u8[ceil(N / 64)], a bit a position; marked ones are set.
    """
    for e in edge:
        t = indices[e]
        if local[t] == NOWHERE:
            local[t] = _WAITING
            r = rank[t] if rank.size else t
            bits[r >> 6] |= np.uint64(1) << np.uint64(r & 63)


@njit(cache=True, nogil=True)
def collect(
    bits: NDArray[np.uint64],
    by_rank: NDArray[np.int32],
    local: NDArray[np.int32],
    known: NDArray[np.int32],
    starts: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Vertices with the marked ones behind them, in order, and the first row of each block among
    the new ones.

    Parameters
    ----------
    bits : as of `mark`; left all zero.
    by_rank : i4[N], vertex at each position; empty: the same number.
    local : i4[N]; new vertices get the ids after `known`.
    known : i4[n], vertices so far.
    starts : i8[K + 1], first position of each block.

    Returns
    -------
    n_id : i4[n + new]. block_ptr : i4[K + 1], its last entry n + new. O(N / 64 + new + K).
    """
    new = 0
    for w in range(bits.size):
        word = bits[w]
        while word != 0:
            word &= word - np.uint64(1)
            new += 1
    n_id = np.empty(known.size + new, np.int32)
    n_id[: known.size] = known
    block_ptr = np.empty(starts.size, np.int32)
    at = known.size
    block = 0
    for w in range(bits.size):
        word = bits[w]
        if word == 0:
            continue
        bits[w] = 0
        for b in range(64):
            if (word >> np.uint64(b)) & np.uint64(1):
                r = 64 * w + b
                while block < starts.size and starts[block] <= r:
                    block_ptr[block] = at
                    block += 1
                v = by_rank[r] if by_rank.size else r
                n_id[at] = v
                local[v] = at
                at += 1
    block_ptr[block:] = at
    return n_id, block_ptr


@njit(cache=True, nogil=True)
def forget(n_id: NDArray[np.int32], local: NDArray[np.int32]) -> None:
    """Leave `local` all -1."""
    for v in n_id:
        local[v] = NOWHERE


@njit(cache=True, nogil=True)
def relabel(
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    out_ptr: NDArray[np.int64],
    edge: NDArray[np.int64],
    scale: NDArray[np.float32],
    local: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Kept edges as a CSR of local ids, columns sorted.

    Parameters
    ----------
    out_ptr, edge, scale : as `stockpot.stages.sample.pick` gives them.

    Returns
    -------
    indptr, columns : i4[R + 1], i4[m]. edge_w : f4[m], `scale` with mean 1 in each row; empty where
        `scale` is.
    kept : f4[m], weights of the graph; empty where it has none.
    """
    m = edge.size
    columns = np.empty(m, np.int32)
    edge_w = np.empty(scale.size, np.float32)
    kept = np.empty(m if weight.size else 0, np.float32)
    indptr = np.empty(out_ptr.size, np.int32)
    indptr[0] = 0
    longest = 0
    for i in range(out_ptr.size - 1):
        indptr[i + 1] = out_ptr[i + 1]
        longest = max(longest, out_ptr[i + 1] - out_ptr[i])
    keys = np.empty(longest, np.int64)
    for i in range(out_ptr.size - 1):
        start = out_ptr[i]
        d = out_ptr[i + 1] - start
        total = 0.0
        for j in range(d):
            keys[j] = np.int64(local[indices[edge[start + j]]]) << 32 | j
            if scale.size:
                total += scale[start + j]
        if d <= _SHORT:
            for j in range(1, d):
                key = keys[j]
                b = j - 1
                while b >= 0 and keys[b] > key:
                    keys[b + 1] = keys[b]
                    b -= 1
                keys[b + 1] = key
        else:
            keys[:d].sort()
        for j in range(d):
            old = start + (keys[j] & 0xFFFFFFFF)
            columns[start + j] = keys[j] >> 32
            if scale.size:
                edge_w[start + j] = scale[old] * d / total
            if weight.size:
                kept[start + j] = weight[edge[old]]
    return indptr, columns, edge_w, kept


@njit(cache=True, nogil=True)
def slots(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    rows: NDArray[np.int32],
    local: NDArray[np.int32],
) -> tuple[NDArray[np.int32], int]:
    """Place of every entry's source among the distinct sources of some rows, and how many those
    are.

    Parameters
    ----------
    local : i4[N], used and left as it was.

    Returns
    -------
    i4[entries of the rows], T
    """
    entries = 0
    for s in rows:
        entries += indptr[s + 1] - indptr[s]
    out = np.empty(entries, np.int32)
    seen = np.empty(min(entries, local.size), np.int32)
    before = np.empty(seen.size, np.int32)
    count = 0
    at = 0
    for s in rows:
        for e in range(indptr[s], indptr[s + 1]):
            t = indices[e]
            place = -3 - local[t]  # places are kept as -3, -4, ...: no local id is below -1 here
            if place < 0:
                place = count
                seen[count] = t
                before[count] = local[t]
                local[t] = -3 - count
                count += 1
            out[at] = place
            at += 1
    for j in range(count):
        local[seen[j]] = before[j]
    return out, count
