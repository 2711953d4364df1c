"""Levels of a HAG turned, trimmed to the first rows and joined: each gives a HAG again, in time
linear in its reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.hag.hag import Hag
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["head", "joined", "transposed"]

_NONE = np.zeros(0, np.int32)


@njit(cache=True, nogil=True)
def _turn(
    rows: int,
    cols: int,
    level_ptr: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    out_weight: NDArray[np.int32],
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int32],
]:
    aggs = indptr.size - 1
    weighted = weight.size + out_weight.size > 0
    depth = level_ptr.size - 1
    new = np.empty(aggs, np.int64)  # levels from the last to the first
    for k in range(depth):
        for j in range(level_ptr[k], level_ptr[k + 1]):
            new[j] = aggs - level_ptr[k + 1] + j - level_ptr[k]
    t_indptr, t_out_indptr = np.zeros(aggs + 1, np.int64), np.zeros(cols + 1, np.int64)
    for part in (indices, out_indices):
        for b in part:
            if b < cols:
                t_out_indptr[b + 1] += 1
            else:
                t_indptr[new[b - cols] + 1] += 1
    for j in range(aggs):
        t_indptr[j + 1] += t_indptr[j]
    for c in range(cols):
        t_out_indptr[c + 1] += t_out_indptr[c]
    t_indices, t_out_indices = (
        np.empty(t_indptr[aggs], np.int32),
        np.empty(t_out_indptr[cols], np.int32),
    )
    t_weight = np.ones(t_indices.size if weighted else 0, np.int32)
    t_out_weight = np.ones(t_out_indices.size if weighted else 0, np.int32)
    place, out_place = t_indptr[:aggs].copy(), t_out_indptr[:cols].copy()
    for i in range(rows):
        for k in range(out_indptr[i], out_indptr[i + 1]):
            b = out_indices[k]
            if b < cols:
                at = out_place[b]
                out_place[b] += 1
                t_out_indices[at] = i
                if out_weight.size:
                    t_out_weight[at] = out_weight[k]
            else:
                at = place[new[b - cols]]
                place[new[b - cols]] += 1
                t_indices[at] = i
                if out_weight.size:
                    t_weight[at] = out_weight[k]
    for level in range(depth - 1, -1, -1):  # in the new order, so that columns come sorted
        for j in range(level_ptr[level], level_ptr[level + 1]):
            for k in range(indptr[j], indptr[j + 1]):
                b = indices[k]
                if b < cols:
                    at = out_place[b]
                    out_place[b] += 1
                    t_out_indices[at] = rows + new[j]
                    if weight.size:
                        t_out_weight[at] = weight[k]
                else:
                    at = place[new[b - cols]]
                    place[new[b - cols]] += 1
                    t_indices[at] = rows + new[j]
                    if weight.size:
                        t_weight[at] = weight[k]
    return t_indptr, t_indices, t_weight, t_out_indptr, t_out_indices, t_out_weight


def transposed(hag: Hag) -> Hag:
    """The HAG of the transposed CSR: what a sum's gradient runs on. O(reads + rows + columns).

    Every aggregation node hands its gradient to what it reads, so it stands in the reversed order
    of levels, its columns being what read it. As many reads; a symmetric CSR does not make it the
    same HAG.
    """
    found = _turn(
        hag.num_rows,
        hag.num_nodes,
        hag.level_ptr,
        hag.indptr,
        hag.indices,
        _NONE if hag.weight is None else hag.weight,
        hag.out_indptr,
        hag.out_indices,
        _NONE if hag.out_weight is None else hag.out_weight,
    )
    return Hag(
        hag.num_nodes,
        hag.num_rows,
        level_ptr=hag.level_ptr[-1] - hag.level_ptr[::-1],
        indptr=found[0],
        indices=found[1],
        out_indptr=found[3],
        out_indices=found[4],
        weight=found[2] if found[2].size else None,
        out_weight=found[5] if found[5].size else None,
        crc=hag.crc,
        plain_reads=hag.plain_reads,
        plain_adds=hag.plain_adds,
    )


@njit(cache=True, nogil=True)
def _head(
    rows: int,
    cols: int,
    num_nodes: int,
    level_ptr: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
]:
    aggs = indptr.size - 1
    needed = np.zeros(aggs, np.bool_)
    for k in range(out_indptr[rows]):
        b = out_indices[k]
        if b >= num_nodes:
            needed[b - num_nodes] = True
    reads = np.int64(0)
    for j in range(aggs - 1, -1, -1):
        if needed[j]:
            reads += indptr[j + 1] - indptr[j]
            for k in range(indptr[j], indptr[j + 1]):
                b = indices[k]
                if b >= num_nodes:
                    needed[b - num_nodes] = True
    new = np.empty(aggs, np.int64)
    kept = np.empty(aggs, np.int64)
    ends = np.zeros(level_ptr.size, np.int64)
    count, level = 0, 0
    for k in range(level_ptr.size - 1):
        first = count
        for j in range(level_ptr[k], level_ptr[k + 1]):
            new[j] = cols + count
            if needed[j]:
                kept[count] = j
                count += 1
        if count > first:
            level += 1
            ends[level] = count
    new_indptr, new_indices = np.zeros(count + 1, np.int64), np.empty(reads, np.int32)
    end = 0
    for i in range(count):
        j = kept[i]
        for k in range(indptr[j], indptr[j + 1]):
            b = indices[k]
            new_indices[end] = b if b < num_nodes else new[b - num_nodes]
            end += 1
        new_indptr[i + 1] = end
    out = np.empty(out_indptr[rows], np.int32)
    for k in range(out.size):
        b = out_indices[k]
        out[k] = b if b < num_nodes else new[b - num_nodes]
    return (
        kept[:count],
        ends[: level + 1],
        new_indptr,
        new_indices,
        out_indptr[: rows + 1].copy(),
        out,
    )


def head(hag: Hag, rows: int, cols: int) -> Hag:
    """The HAG of the first rows, which must read no column from `cols` on: without what they do not
    need. O(reads).

    Multiplicities are not carried: records have none.
    """
    if rows == hag.num_rows and cols == hag.num_nodes:
        return hag
    if hag.weight is not None or hag.out_weight is not None:
        raise ValueError("a HAG with multiplicities is not trimmed")
    _, level_ptr, indptr, indices, out_indptr, out_indices = _head(
        rows,
        cols,
        hag.num_nodes,
        hag.level_ptr,
        hag.indptr,
        hag.indices,
        hag.out_indptr,
        hag.out_indices,
    )
    return Hag(
        rows,
        cols,
        level_ptr=level_ptr,
        indptr=indptr,
        indices=indices,
        out_indptr=out_indptr,
        out_indices=out_indices,
        weight=None,
        out_weight=None,
        crc=hag.crc,
        plain_reads=hag.plain_reads,
        plain_adds=hag.plain_adds,
    )


@njit(cache=True, nogil=True)
def _place(
    first_agg: int,
    count: int,
    node: NDArray[np.int32],
    num_nodes: int,
    cols: int,
    new_of: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    target: NDArray[np.int64],
    out_indices: NDArray[np.int32],
) -> None:
    """Copy `count` rows of a CSR over a record's buffer to rows that begin at `target` entries,
    renumbered.
    """
    for i in range(count):
        at = target[i]
        for k in range(indptr[first_agg + i], indptr[first_agg + i + 1]):
            b = indices[k]
            out_indices[at] = node[b] if b < num_nodes else cols + new_of[b - num_nodes]
            at += 1


def joined(
    hags: Sequence[Hag], rows: Sequence[NDArray[np.int32]], num_rows: int, num_nodes: int
) -> Hag:
    """HAGs of several records as one: results and columns where `rows` puts them, level k of all in
    level k.

    Parameters
    ----------
    hags : of each record, its rows the first of its columns.
    rows : i4[columns of the record], ascending: where each of its nodes stands in the joined
        record.
    num_rows, num_nodes : of the joined CSR; its rows are those of the records and no others.

    Returns
    -------
    Hag
        O(reads + rows). Without a checksum of its own: it belongs to no stored CSR.
    """
    depth = max(h.depth for h in hags)
    width = np.zeros((len(hags), depth + 1), np.int64)
    for r, h in enumerate(hags):
        width[r, : h.depth] = np.diff(h.level_ptr)
    width[:, depth] = 0
    by_level = width[:, :depth].T.reshape(-1)  # level-major, then by record
    starts = np.concatenate([[0], np.cumsum(by_level)]).astype(np.int64)
    start = starts[:-1].reshape(depth, len(hags)) if depth else np.zeros((0, len(hags)), np.int64)
    level_ptr = np.concatenate([[0], np.cumsum(width[:, :depth].sum(0))]).astype(np.int64)
    new_of = [
        np.arange(h.num_aggregations)
        + np.repeat(start[: h.depth, r] - h.level_ptr[:-1], np.diff(h.level_ptr)).astype(np.int64)
        for r, h in enumerate(hags)
    ]
    aggs = int(level_ptr[-1])
    length, out_length = np.zeros(aggs, np.int64), np.zeros(num_rows, np.int64)
    for r, h in enumerate(hags):
        length[new_of[r]] = np.diff(h.indptr)
        out_length[rows[r][: h.num_rows]] = np.diff(h.out_indptr)
    indptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    out_indptr = np.concatenate([[0], np.cumsum(out_length)]).astype(np.int64)
    indices, out_indices = np.empty(indptr[-1], np.int32), np.empty(out_indptr[-1], np.int32)
    for r, h in enumerate(hags):
        where = (rows[r], h.num_nodes, num_nodes, new_of[r])
        _place(0, h.num_aggregations, *where, h.indptr, h.indices, indptr[new_of[r]], indices)
        _place(
            0,
            h.num_rows,
            *where,
            h.out_indptr,
            h.out_indices,
            out_indptr[rows[r][: h.num_rows]],
            out_indices,
        )
    first = hags[0]
    return replace(
        first,
        num_rows=num_rows,
        num_nodes=num_nodes,
        level_ptr=level_ptr,
        indptr=indptr,
        indices=indices,
        out_indptr=out_indptr,
        out_indices=out_indices,
        crc=0,
        plain_reads=sum(h.plain_reads for h in hags),
        plain_adds=sum(h.plain_adds for h in hags),
    )
