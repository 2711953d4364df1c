"""Induced subgraphs ordered by hop, block and id, in time linear in their nodes' degrees, the same
on any machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["gather_further", "gather_rows", "subgraph", "weight_sums"]


@njit(cache=True, nogil=True)
def subgraph(
    nodes: NDArray[np.int32],
    outputs: NDArray[np.int32],
    block: NDArray[np.int32],
    blocks: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    local: NDArray[np.int32],
) -> tuple[
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.float32],
    NDArray[np.float64],
]:
    """Subgraph induced by the nodes that reach an output, hop = breadth-first distance along
    in-edges from the outputs.

    Parameters
    ----------
    nodes : i4[n0], ascending, a superset of `outputs`.
    outputs : i4[o], distinct.
    block : i4[n0], block of each node, below `blocks`.
    indptr, indices : i8[N + 1], i4[E], the whole graph: row = destination, columns = in-neighbours,
        no self-loops.
    weight : f4[E], or empty where the graph has none.
    local : i4[N], all -1; scratch, left all -1.

    Returns
    -------
    n_id : i4[n], outputs first, then by (hop, block, id); nodes that reach no output are left out.
    block_ptr : i4[hops, blocks + 1], first row of each block in each hop; row ends are the next
        hop's start.
    sub_indptr, sub_indices : i8[n + 1], i4[e], CSR with row = destination, local ids, columns
        sorted.
    t_indptr, t_indices : i8[n + 1], i4[e], its transpose.
    sub_weight : f4[e] in CSR order, or empty.
    deg_w : f8[n], sum of the weights of a node's in-edges in the whole graph; empty where the graph
        has none.

    Notes
    -----
    O(sum of degrees + hops * blocks), no sorting: appending row numbers in ascending order to the
    rows of the transpose leaves its columns sorted, and transposing once more sorts the columns of
    the CSR itself.
    """
    weighted = weight.size > 0
    for i in range(nodes.size):
        local[nodes[i]] = i
    hop = np.full(nodes.size, -1, np.int32)
    queue = np.empty(nodes.size, np.int32)
    tail = 0
    for k in range(outputs.size):
        i = local[outputs[k]]
        hop[i] = 0
        queue[tail] = i
        tail += 1
    head = 0
    while head < tail:
        i = queue[head]
        head += 1
        v = nodes[i]
        for k in range(indptr[v], indptr[v + 1]):
            j = local[indices[k]]
            if j >= 0 and hop[j] < 0:
                hop[j] = hop[i] + 1
                queue[tail] = j
                tail += 1
    n = tail
    hops = hop[queue[n - 1]] + 1

    # Counting sort by (hop, block): stable, and the nodes come ascending by id.
    cursor = np.zeros(hops * blocks + 1, np.int64)
    for i in range(nodes.size):
        if hop[i] >= 0:
            cursor[hop[i] * blocks + block[i] + 1] += 1
    for c in range(hops * blocks):
        cursor[c + 1] += cursor[c]
    block_ptr = np.empty((hops, blocks + 1), np.int32)
    for h in range(hops):
        for b in range(blocks + 1):
            block_ptr[h, b] = cursor[h * blocks + b]
    n_id = np.empty(n, np.int32)
    for i in range(nodes.size):
        if hop[i] >= 0:
            c = hop[i] * blocks + block[i]
            n_id[cursor[c]] = nodes[i]
            local[nodes[i]] = cursor[c]
            cursor[c] += 1
        else:
            local[nodes[i]] = -1

    # An in-neighbour of a node that reaches an output reaches it too, so a local id >= 0 is all
    # there is to check.
    t_indptr = np.zeros(n + 1, np.int64)
    sub_indptr = np.zeros(n + 1, np.int64)
    deg_w = np.zeros(n if weighted else 0, np.float64)
    for p in range(n):
        v = n_id[p]
        for k in range(indptr[v], indptr[v + 1]):
            q = local[indices[k]]
            if q >= 0:
                t_indptr[q + 1] += 1
                sub_indptr[p + 1] += 1
            if weighted:
                deg_w[p] += weight[k]
    for p in range(n):
        t_indptr[p + 1] += t_indptr[p]
        sub_indptr[p + 1] += sub_indptr[p]
    edges = sub_indptr[n]
    t_indices = np.empty(edges, np.int32)
    t_weight = np.empty(edges if weighted else 0, np.float32)
    place = t_indptr[:n].copy()
    for p in range(n):
        v = n_id[p]
        for k in range(indptr[v], indptr[v + 1]):
            q = local[indices[k]]
            if q >= 0:
                t_indices[place[q]] = p
                if weighted:
                    t_weight[place[q]] = weight[k]
                place[q] += 1
    sub_indices = np.empty(edges, np.int32)
    sub_weight = np.empty(edges if weighted else 0, np.float32)
    place = sub_indptr[:n].copy()
    for q in range(n):
        for k in range(t_indptr[q], t_indptr[q + 1]):
            p = t_indices[k]
            sub_indices[place[p]] = q
            if weighted:
                sub_weight[place[p]] = t_weight[k]
            place[p] += 1
    for p in range(n):
        local[n_id[p]] = -1
    return n_id, block_ptr, sub_indptr, sub_indices, t_indptr, t_indices, sub_weight, deg_w


def gather_rows(
    rows: NDArray[np.integer[Any]], code_indptr: NDArray[np.int64] | None, codes: NDArray[np.uint8]
) -> tuple[NDArray[np.int32] | None, NDArray[np.uint8]]:
    """(row pointer or None, codes) of some rows of the codes of a whole graph, as a record holds
    them.
    """
    if code_indptr is None:
        return None, codes[rows]
    indptr, found = gather(rows, code_indptr, codes)
    return indptr.astype(np.int32), found


def gather_further(
    rows: NDArray[np.integer[Any]], coded: NDArray[np.integer[Any]], codes: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """(codes u1[k, bytes], rows i4[k] ascending) of those of `rows` that have further stages, as a
    record holds them.

    Parameters
    ----------
    rows : ids of nodes. coded : ascending ids of those with further stages. codes : u1[len(coded),
        bytes].
    """
    at = np.searchsorted(coded, rows)
    at[at == coded.size] = 0
    here = np.flatnonzero(coded[at] == rows) if coded.size else np.zeros(0, np.int64)
    return codes[at[here]], here.astype(np.int32)


@njit(cache=True, nogil=True)
def gather(
    rows: NDArray[np.int32], code_indptr: NDArray[np.int64], codes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows of varying length: (indptr i8[n + 1], bytes u1[total]) of `rows` (i4[n]) of the codes of
    a whole graph.
    """
    indptr = np.zeros(rows.size + 1, np.int64)
    for i in range(rows.size):
        indptr[i + 1] = indptr[i] + code_indptr[rows[i] + 1] - code_indptr[rows[i]]
    out = np.empty(indptr[rows.size], np.uint8)
    for i in range(rows.size):
        start = code_indptr[rows[i]]
        for k in range(indptr[i + 1] - indptr[i]):
            out[indptr[i] + k] = codes[start + k]
    return indptr, out


@njit(cache=True, nogil=True)
def weight_sums(
    rows: NDArray[np.int32], indptr: NDArray[np.int64], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """f4[n], sum of the weights of the in-edges of some rows of the whole graph, in double
    precision.
    """
    out = np.empty(rows.size, np.float32)
    for i in range(rows.size):
        total = 0.0
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            total += weight[k]
        out[i] = total
    return out
