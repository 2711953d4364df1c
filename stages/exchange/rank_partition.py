"""What one rank holds of a record: the rows it owns, one contiguous range a hop, and names for
those of others.

A node belongs to the rank of its block: owner = block * ranks // K (arXiv 2310.12403, section 3;
blocks are sorted inside each hop when a record is packed). The in-edges of a node belong to its
owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.pack.record import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = [
    "DEEPEST",
    "Owned",
    "Piece",
    "bounds",
    "checksums",
    "cut",
    "edges_of",
    "needs",
    "own_codes",
    "owned",
    "parts_read",
    "read_by",
]

DEEPEST = 16
"""Layers of a model that several ranks train: a bit each in `Piece.used`."""


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
            f"train.ranks: expected at most {blocks}, one a block of the packed records, found "
            f"{ranks}",
            fix=f"--set train.ranks={blocks}",
        )
    first = -(
        -np.arange(ranks + 1) * blocks // ranks
    )  # the first block b with b * ranks // blocks == p
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
    sizes : i8[hops], own nodes of each hop; own nodes are numbered from 0 in their order in the
        record.
    n_id, deg, deg_w : of the own nodes, as in `Record`.
    layers : CSR of the own nodes of all hops but, where trimmed, the last; of form "layers" one for
        each layer, of its rows. Columns below n = sizes.sum() are own nodes, n + k is `remote[k]`.
    y, input_id : own outputs.
    remote : i4[m], rows of the record owned by others, by (owner, row).
    remote_ptr : i8[ranks + 1], those of owner p: remote_ptr[p]:remote_ptr[p + 1].
    used : u2[m], bit h where the layer that computes own rows of hops <= h reads it.
    sampled : whether the edges are a sample (`stockpot.stages.pack.sampled`).
    """

    sizes: NDArray[np.int64]
    n_id: NDArray[np.integer[Any]]
    deg: NDArray[np.int32]
    layers: tuple[Layer, ...]
    y: NDArray[np.int32]
    input_id: NDArray[np.int64]
    remote: NDArray[np.int32]
    remote_ptr: NDArray[np.int64]
    used: NDArray[np.uint16]
    sampled: bool
    deg_w: NDArray[np.float32] | None = None

    @property
    def num_nodes(self) -> int:
        """Own nodes."""
        return self.n_id.size


@njit(cache=True, nogil=True)
def _mark(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    bits: NDArray[np.uint16],
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    used: NDArray[np.uint16],
) -> None:
    """Set bits[h] at all that rows start[h]:stop[h] read."""
    for h in range(start.size):
        for i in range(start[h], stop[h]):
            for k in range(indptr[i], indptr[i + 1]):
                used[indices[k]] |= bits[h]


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


def edges_of(record: Record) -> Sequence[Layer]:
    """The edges of each layer, or the one CSR that serves all."""
    if record.layered and record.layers is not None:
        return record.layers
    return (Layer(record.indptr, record.indices, weight=record.weight),)


def needs(
    record: Record, ranks: int, rank: int, layers: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], Any]:
    """(remote, remote_ptr, used) of a `Piece`: what own rows read of other ranks in a model of
    `layers` layers.

    O(nodes of the record + own edges).
    """
    found = bounds(record.block_ptr, ranks)
    start, stop = found[:, rank].copy(), found[:, rank + 1].copy()
    used = np.zeros(record.num_nodes, np.uint16)
    hops = np.arange(min(layers, len(found)))
    for depth, edges in enumerate(edges_of(record)[:layers]):
        # Rows of hop h are computed by all layers from the h-th on, or have edges of their own in
        # this one.
        read, bits = (
            (hops[: depth + 1], 1 << depth)
            if record.layered
            else (hops, 0xFFFF << np.minimum(hops, DEEPEST))
        )
        bits = np.broadcast_to(bits & 0xFFFF, read.shape).astype(np.uint16)
        n = read.size
        _mark(start[:n], stop[:n], bits, frozen(edges.indptr), frozen(edges.indices), used)
    for a, b in zip(start, stop, strict=True):
        used[a:b] = 0
    parts = []
    for p in range(ranks):
        spans = [
            np.flatnonzero(used[a:b]) + a for a, b in zip(found[:, p], found[:, p + 1], strict=True)
        ]
        parts.append(np.concatenate(spans))
    remote = np.concatenate(parts).astype(np.int32)
    pointer = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int64)
    return remote, pointer, used[remote]


def cut(record: Record, ranks: int, rank: int, layers: int | None = None) -> Piece:
    """The piece of one rank.

    Parameters
    ----------
    layers : keep what a model of that many layers needs: nodes of hops <= layers, rows of hops <=
        layers - 1.

    Returns
    -------
    Piece
        Of the record's columns it reads those ranges alone that `rank` owns. O(nodes of the record
        + own edges).

    Raises
    ------
    BadInput
        More ranks than blocks.
    """
    hops = len(record.num_sampled_nodes)
    kept, whole = (hops, hops) if layers is None else (min(hops, layers + 1), min(hops, layers))
    mine = owned(record.block_ptr, ranks, rank).head(kept)
    remote, pointer, used = needs(record, ranks, rank, whole)
    rows = mine.rows
    name = np.empty(record.num_nodes, np.int32)
    name[rows] = np.arange(rows.size)
    name[remote] = rows.size + np.arange(remote.size)
    outputs = slice(int(mine.start[0]), int(mine.stop[0]))
    return Piece(
        sizes=mine.sizes,
        n_id=record.n_id[rows],
        deg=record.deg[rows],
        layers=tuple(
            _own_edges(edges, mine.head(depth + 1 if record.layered else whole), name)
            for depth, edges in enumerate(edges_of(record)[:whole])
        ),
        y=record.y[outputs],
        input_id=record.input_id[outputs],
        remote=remote,
        remote_ptr=pointer,
        used=used,
        sampled=record.layers is not None,
        deg_w=None if record.deg_w is None else record.deg_w[rows],
    )


def _own_edges(edges: Layer, reading: Owned, name: NDArray[np.int32]) -> Layer:
    """The edges of some rows, their columns renamed."""
    spans = [
        slice(int(edges.indptr[a]), int(edges.indptr[b]))
        for a, b in zip(reading.start, reading.stop, strict=True)
    ]
    indptr = np.zeros(int(reading.sizes.sum()) + 1, np.int32)
    indices = np.empty(sum(span.stop - span.start for span in spans), np.int32)
    _renamed(
        reading.start,
        reading.stop,
        frozen(edges.indptr),
        frozen(edges.indices),
        name,
        indptr,
        indices,
    )
    values = {
        kind: np.concatenate([found[span] for span in spans])
        for kind in ("edge_w", "weight")
        if (found := getattr(edges, kind)) is not None
    }
    return Layer(indptr, indices, **values)


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
        further = [
            slice(*map(int, np.searchsorted(record.codes_1_rows, (s.start, s.stop)))) for s in spans
        ]
        base = np.cumsum([0, *mine.sizes])
        codes_1 = np.concatenate([record.codes_1[f] for f in further])
        moved = [
            record.codes_1_rows[f] - s.start + b
            for f, s, b in zip(further, spans, base, strict=False)
        ]
        rows = np.concatenate(moved).astype(np.int32)
    pointer = record.code_indptr
    if pointer is None:
        return OwnCodes(np.concatenate([record.codes[span] for span in spans]), None, codes_1, rows)
    codes = np.concatenate(
        [record.codes[int(pointer[s.start]) : int(pointer[s.stop])] for s in spans]
    )
    lengths = np.concatenate([np.diff(pointer[s.start : s.stop + 1]) for s in spans])
    return OwnCodes(
        codes, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), codes_1, rows
    )


def read_by(record: Record, mine: Owned, hop: int) -> list[list[NDArray[Any]]]:
    """What a rank reads of one hop, contiguous views: its node columns, then its edge columns of
    each CSR.

    A model of L layers reads of hop h the node columns where h <= L, and the edge columns where h
    <= L - 1: of form "layers" those of layers h to L - 1, which have its rows.
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
    found = [nodes]
    for depth, edges in enumerate(edges_of(record)):
        if record.layered and depth < hop:
            found.append([])
            continue
        span = slice(int(edges.indptr[a]), int(edges.indptr[b]))
        columns = [edges.indices, *(c for c in (edges.edge_w, edges.weight) if c is not None)]
        found.append([edges.indptr[a : b + 1], *(column[span] for column in columns)])
    return found


def parts_read(record: Record, layers: int) -> NDArray[np.bool_]:
    """bool[hops, 1 + CSRs]: which lists of `read_by` a model of `layers` layers reads."""
    hop = np.arange(len(record.num_sampled_nodes))[:, None]
    depth = np.arange(len(edges_of(record)))[None]
    edges = (
        (hop <= depth) & (depth < layers)
        if record.layered
        else np.broadcast_to(hop < layers, (hop.size, 1))
    )
    return np.concatenate([hop <= layers, edges], axis=1)


def checksums(record: Record, mine: Owned, layers: int) -> NDArray[np.uint32]:
    """u4[hops, 1 + CSRs], crc32c of each list of `read_by`, 0 of what a model of `layers` layers
    does not read.
    """
    read = parts_read(record, layers)
    out = np.zeros(read.shape, np.uint32)
    for hop in np.flatnonzero(read[:, 0]):
        for k, columns in enumerate(read_by(record, mine, int(hop))):
            crc = 0
            for column in columns if read[hop, k] else ():
                crc = google_crc32c.extend(crc, column.tobytes())
            out[hop, k] = crc
    return out
