"""What one rank holds of a record: the rows it owns, one contiguous range a hop, and names for those of others.

A node belongs to the rank of its block: owner = block * ranks // K (arXiv 2310.12403, section 3; blocks are sorted
inside each hop when a record is packed). The in-edges of a node belong to its owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numba import njit

from stages.errors import BadInput
from stages.ingest.csr import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.pack.record import Record

__all__ = ["Owned", "Piece", "bounds", "checksums", "cut", "needs", "own_codes", "owned", "read_by"]

FAR = 255
"""Level of a node that no row of the rank reads."""


def bounds(block_ptr: NDArray[np.int32], ranks: int) -> NDArray[np.int64]:
    """i8[hops, ranks + 1]: rank p owns rows bounds[h, p]:bounds[h, p + 1] of hop h.

    Raises
    ------
    BadInput
        More ranks than blocks.
    """
    blocks = block_ptr.shape[1] - 1
    if ranks > blocks:
        raise BadInput(
            f"train.ranks: expected at most {blocks}, one a block of the packed records, found {ranks}",
            fix=f"--set train.ranks={blocks}",
        )
    first = -(-np.arange(ranks + 1) * blocks // ranks)  # the first block b with b * ranks // blocks == p
    return block_ptr[:, first].astype(np.int64)


@dataclass(frozen=True)
class Owned:
    """Rows of one rank in one record, by hop.

    Attributes
    ----------
    start, stop : i8[hops], rows start:stop of the record in each hop.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """i8[hops]"""
        return self.stop - self.start

    @property
    def rows(self) -> NDArray[np.int64]:
        """i8[n], the rows in the record, ascending."""
        return np.concatenate([np.arange(a, b) for a, b in zip(self.start, self.stop, strict=True)])

    def head(self, hops: int) -> Owned:
        """Of the first hops."""
        return Owned(self.start[:hops], self.stop[:hops])


def owned(block_ptr: NDArray[np.int32], ranks: int, rank: int) -> Owned:
    """Rows that `rank` owns; see `bounds`."""
    found = bounds(block_ptr, ranks)
    return Owned(found[:, rank], found[:, rank + 1])


@dataclass(frozen=True)
class Piece:
    """One rank's rows of a record, and the rows of other ranks that they read.

    Attributes
    ----------
    sizes : i8[hops], own nodes of each hop; own nodes are numbered from 0 in their order in the record.
    n_id, deg, deg_w : of the own nodes, as in `Record`.
    indptr, indices, weight : CSR of the own nodes of all hops but, where trimmed, the last; columns below
        n = sizes.sum() are own nodes, n + k is `remote[k]`.
    y, input_id : own outputs.
    remote : i4[m], rows of the record owned by others, by (owner, row).
    remote_ptr : i8[ranks + 1], those of owner p: remote_ptr[p]:remote_ptr[p + 1].
    level : u1[m], the lowest hop of an own row that reads it.
    """

    sizes: NDArray[np.int64]
    n_id: NDArray[np.integer[Any]]
    deg: NDArray[np.int32]
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    y: NDArray[np.int32]
    input_id: NDArray[np.int64]
    remote: NDArray[np.int32]
    remote_ptr: NDArray[np.int64]
    level: NDArray[np.uint8]
    weight: NDArray[np.float32] | None = None
    deg_w: NDArray[np.float32] | None = None
    out_deg: NDArray[np.int32] | None = None

    @property
    def num_nodes(self) -> int:
        """Own nodes."""
        return self.n_id.size


@njit(cache=True, nogil=True)
def _levels(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    level: NDArray[np.uint8],
) -> None:
    """Mark what rows start[h]:stop[h] read with the lowest such h; `level` comes filled with FAR."""
    for h in range(start.size):
        for i in range(start[h], stop[h]):
            for k in range(indptr[i], indptr[i + 1]):
                if level[indices[k]] == FAR:
                    level[indices[k]] = h


@njit(cache=True, nogil=True)
def _renamed(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    name: NDArray[np.int32],
    out_indptr: NDArray[np.int32],
    out_indices: NDArray[np.int32],
) -> None:
    row, end = 0, 0
    out_indptr[0] = 0
    for h in range(start.size):
        for i in range(start[h], stop[h]):
            for k in range(indptr[i], indptr[i + 1]):
                out_indices[end] = name[indices[k]]
                end += 1
            row += 1
            out_indptr[row] = end


def needs(record: Record, ranks: int, rank: int, hops: int) -> tuple[NDArray[np.int32], NDArray[np.int64], Any]:
    """(remote, remote_ptr, level) of a `Piece`: what the own rows of the first `hops` hops read of other ranks.

    O(nodes of the record + own edges).
    """
    found = bounds(record.block_ptr, ranks)
    reading = Owned(found[:hops, rank], found[:hops, rank + 1])
    level = np.full(record.num_nodes, FAR, np.uint8)
    if len(found) >= FAR:
        raise BadInput(f"record: expected fewer than {FAR} hops, found {len(found)}", fix="lower batches.top_k")
    _levels(reading.start, reading.stop, frozen(record.indptr), frozen(record.indices), level)
    for a, b in zip(found[:, rank], found[:, rank + 1], strict=True):
        level[a:b] = FAR
    parts = []
    for p in range(ranks):
        spans = [np.flatnonzero(level[a:b] != FAR) + a for a, b in zip(found[:, p], found[:, p + 1], strict=True)]
        parts.append(np.concatenate(spans))
    remote = np.concatenate(parts).astype(np.int32)
    pointer = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int64)
    return remote, pointer, level[remote]


def cut(record: Record, ranks: int, rank: int, layers: int | None = None) -> Piece:
    """The piece of one rank.

    Parameters
    ----------
    layers : keep what a model of that many layers needs: nodes of hops <= layers, rows of hops <= layers - 1.

    Returns
    -------
    Piece
        Of the record's columns it reads those ranges alone that `rank` owns. O(nodes of the record + own edges).

    Raises
    ------
    BadInput
        More ranks than blocks.
    """
    hops = len(record.num_sampled_nodes)
    kept, whole = (hops, hops) if layers is None else (min(hops, layers + 1), min(hops, layers))
    mine = owned(record.block_ptr, ranks, rank).head(kept)
    remote, pointer, level = needs(record, ranks, rank, whole)
    rows = mine.rows
    name = np.empty(record.num_nodes, np.int32)
    name[rows] = np.arange(rows.size)
    name[remote] = rows.size + np.arange(remote.size)
    reading = mine.head(whole)
    spans = [(int(a), int(b)) for a, b in zip(reading.start, reading.stop, strict=True)]
    edges = sum(int(record.indptr[b]) - int(record.indptr[a]) for a, b in spans)
    indptr, indices = np.zeros(int(reading.sizes.sum()) + 1, np.int32), np.empty(edges, np.int32)
    _renamed(reading.start, reading.stop, frozen(record.indptr), frozen(record.indices), name, indptr, indices)
    outputs = slice(int(mine.start[0]), int(mine.stop[0]))
    weight = record.weight
    if weight is not None:
        weight = np.concatenate([weight[int(record.indptr[a]) : int(record.indptr[b])] for a, b in spans])
    return Piece(
        sizes=mine.sizes,
        n_id=record.n_id[rows],
        deg=record.deg[rows],
        indptr=indptr,
        indices=indices,
        y=record.y[outputs],
        input_id=record.input_id[outputs],
        remote=remote,
        remote_ptr=pointer,
        level=level,
        weight=weight,
        deg_w=None if record.deg_w is None else record.deg_w[rows],
    )


@dataclass(frozen=True)
class OwnCodes:
    """Codes of the own rows, as a `Record` of them would hold them."""

    codes: NDArray[np.uint8]
    code_indptr: NDArray[np.int32] | None = None
    codes_1: NDArray[np.uint8] | None = None
    codes_1_rows: NDArray[np.int32] | None = None


def own_codes(record: Record, mine: Owned) -> OwnCodes:
    """Codes of the own rows of a record that holds codes: those of each hop are contiguous."""
    spans = [slice(int(a), int(b)) for a, b in zip(mine.start, mine.stop, strict=True)]
    codes_1, rows = None, None
    if record.codes_1 is not None and record.codes_1_rows is not None:
        further = [slice(*map(int, np.searchsorted(record.codes_1_rows, (s.start, s.stop)))) for s in spans]
        base = np.cumsum([0, *mine.sizes])
        codes_1 = np.concatenate([record.codes_1[f] for f in further])
        moved = [record.codes_1_rows[f] - s.start + b for f, s, b in zip(further, spans, base, strict=False)]
        rows = np.concatenate(moved).astype(np.int32)
    pointer = record.code_indptr
    if pointer is None:
        return OwnCodes(np.concatenate([record.codes[span] for span in spans]), None, codes_1, rows)
    codes = np.concatenate([record.codes[int(pointer[s.start]) : int(pointer[s.stop])] for s in spans])
    lengths = np.concatenate([np.diff(pointer[s.start : s.stop + 1]) for s in spans])
    return OwnCodes(codes, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), codes_1, rows)


def read_by(record: Record, mine: Owned, hop: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """(node columns, edge columns) of one hop that a rank reads, contiguous views.

    A model of L layers reads the node columns of hops <= L and the edge columns of hops <= L - 1.
    """
    a, b = int(mine.start[hop]), int(mine.stop[hop])
    nodes: list[NDArray[Any]] = [record.n_id[a:b], record.deg[a:b]]
    if record.deg_w is not None:
        nodes.append(record.deg_w[a:b])
    pointer = record.code_indptr
    if pointer is not None:
        nodes += [pointer[a : b + 1], record.codes[int(pointer[a]) : int(pointer[b])]]
    elif len(record.codes) == record.num_nodes:  # else they are gathered
        nodes.append(record.codes[a:b])
    if record.codes_1 is not None and record.codes_1_rows is not None:
        further = slice(*map(int, np.searchsorted(record.codes_1_rows, (a, b))))
        nodes += [record.codes_1[further], record.codes_1_rows[further]]
    if hop == 0:
        nodes += [record.y[a:b], record.input_id[a:b]]
    first, last = int(record.indptr[a]), int(record.indptr[b])
    edges: list[NDArray[Any]] = [record.indptr[a : b + 1], record.indices[first:last]]
    if record.weight is not None:
        edges.append(record.weight[first:last])
    return nodes, edges


def checksums(record: Record, mine: Owned, kept: int, whole: int) -> NDArray[np.uint32]:
    """u4[kept, 2], crc32c of what a rank reads: node columns of `kept` hops, edge columns of the first `whole`."""
    out = np.zeros((kept, 2), np.uint32)
    for hop in range(kept):
        for k, columns in enumerate(read_by(record, mine, hop)[: 1 + (hop < whole)]):
            crc = 0
            for column in columns:
                crc = google_crc32c.extend(crc, column.tobytes())
            out[hop, k] = crc
    return out
