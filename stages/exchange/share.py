"""One rank's share of a training step: its pieces joined, a matrix and an exchange for every layer.

Layer l of L (L applied first) computes the own nodes of hops <= l - 1. Its columns are the own
nodes of hops <= l, then the rows received from each rank in turn; a received row has the place its
owner sent it at.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.exchange.rank_partition import DEEPEST
from stockpot.stages.pack.layers import Matrix, trimmed
from stockpot.stages.pack.record import Layer as Edges
from stockpot.stages.pack.sampled import sampled_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.exchange.halo_plan import Links
    from stockpot.stages.exchange.rank_partition import Piece
    from stockpot.stages.pack.layers import Weights

__all__ = ["Layer", "Share", "share"]


@dataclass(frozen=True)
class Layer:
    """One layer of one rank.

    Attributes
    ----------
    matrix : rows = own nodes it computes; columns = `own` own nodes, then the rows received by
        (rank, place).
    own : own nodes among the columns, the first ones.
    send : i8[s], own nodes to send, by (rank, place).
    sent, received : rows for and from each rank, i8[ranks].
    """

    matrix: Matrix
    own: int
    send: NDArray[np.int64]
    sent: NDArray[np.int64]
    received: NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """One rank's part of one or more joined records.

    Attributes
    ----------
    layers : the first applied first.
    n_id : ids of the own nodes of hops <= L, hop by hop, in a hop record by record.
    y, input_id : own outputs.
    rows : i4[kept] for each piece: where its own nodes stand here.
    sizes : i8[L + 1], own nodes of each hop.
    """

    layers: tuple[Layer, ...]
    n_id: NDArray[np.integer[Any]]
    y: NDArray[np.int32]
    input_id: NDArray[np.int64]
    rows: tuple[NDArray[np.int64], ...]
    sizes: NDArray[np.int64]


def share(pieces: Sequence[Piece], links: Sequence[Links], how: Weights, layers: int) -> Share:
    """Join pieces of one rank, cut for `layers` layers, in the order in which all ranks join
    theirs.

    Parameters
    ----------
    pieces, links : of the records of the step. how : values of the matrices.

    Returns
    -------
    Share
        Its values are those of one process on the whole step, bit by bit. O(own nodes + own edges)
        a layer.

    Raises
    ------
    BadInput
        The model is deeper than the records were sampled, or than any that ranks share.
    """
    if layers > DEEPEST:
        raise BadInput(f"train.layers: expected at most {DEEPEST} on several ranks, found {layers}")
    sizes = np.zeros((len(pieces), layers + 1), np.int64)
    for r, piece in enumerate(pieces):
        sizes[r, : piece.sizes.size] = piece.sizes
    rows = _places(sizes)
    total = int(sizes.sum())
    ranks = pieces[0].remote_ptr.size - 1

    owner = [np.repeat(np.arange(ranks), np.diff(piece.remote_ptr)) for piece in pieces]
    order = np.argsort(np.concatenate(owner), kind="stable")  # by (owner, record, row)
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    owner_of, used = (
        np.concatenate(owner)[order],
        np.concatenate([piece.used for piece in pieces])[order],
    )
    base = np.concatenate([[0], np.cumsum([piece.used.size for piece in pieces])])
    if layers == 0:  # own outputs, of which nothing is read by others
        return _share(pieces, rows, sizes.sum(0), ())

    count = sizes.sum(0)
    places = [place[a:b] for a, b in pairwise(base)]
    deg = _degrees(pieces, links, rows, places, how, layers)
    names = [np.concatenate([where, total + far]) for where, far in zip(rows, places, strict=True)]
    first: list[Matrix] = []
    for depth in range(layers) if len(pieces[0].layers) > 1 else [layers - 1]:
        computed = int(count[: depth + 1].sum())
        edges = _joined(
            [piece.layers[min(depth, len(piece.layers) - 1)] for piece in pieces], names, computed
        )
        first.append(_valued(how, edges, deg, sampled=pieces[0].sampled))
    made = []
    for hop in range(layers - 1, -1, -1):  # rows of hops <= hop
        rows_here, own = int(count[: hop + 1].sum()), int(count[: hop + 2].sum())
        read = used >> hop & 1 > 0
        name = np.empty(total + order.size, np.int64)
        name[:own] = np.arange(own)
        name[total:][read] = own + np.arange(int(read.sum()))
        send, sent = _send(links, rows, hop, ranks)
        made.append(
            Layer(
                matrix=_narrowed(
                    first[min(hop, len(first) - 1)], rows_here, own + int(read.sum()), name
                ),
                own=own,
                send=send,
                sent=sent,
                received=np.bincount(owner_of[read], minlength=ranks),
            )
        )
    return _share(pieces, rows, count, tuple(made))


def _share(
    pieces: Sequence[Piece],
    rows: Sequence[NDArray[np.int64]],
    sizes: NDArray[np.int64],
    layers: tuple[Layer, ...],
) -> Share:
    return Share(
        layers=layers,
        n_id=_placed(rows, [piece.n_id for piece in pieces]),
        y=np.concatenate([piece.y for piece in pieces]),
        input_id=np.concatenate([piece.input_id for piece in pieces]),
        rows=tuple(rows),
        sizes=sizes,
    )


def _places(sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Where the nodes of each piece stand, hop-major: hop 0 of all, then hop 1 of all, ..."""
    starts = np.concatenate([[0], np.cumsum(sizes.T.reshape(-1))])[:-1].reshape(sizes.shape[::-1]).T
    return [
        np.concatenate(
            [start + np.arange(size) for start, size in zip(starts[r], sizes[r], strict=True)]
        )
        for r in range(len(sizes))
    ]


def _placed(rows: Sequence[NDArray[np.int64]], parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    out = np.empty(sum(part.size for part in parts), parts[0].dtype)
    for where, part in zip(rows, parts, strict=True):
        out[where] = part
    return out


def _degrees(
    pieces: Sequence[Piece],
    links: Sequence[Links],
    rows: Sequence[NDArray[np.int64]],
    places: Sequence[NDArray[np.int64]],
    how: Weights,
    layers: int,
) -> NDArray[Any]:
    """Of the own nodes of all hops, then of all rows that any layer receives."""
    kind = "deg_w" if pieces[0].deg_w is not None and how.adj == "norm" else "deg"
    mask = (1 << layers) - 1
    far = _placed(places, [getattr(link, kind)[(link.used & mask) > 0] for link in links])
    return np.concatenate([_placed(rows, [getattr(piece, kind) for piece in pieces]), far])


def _joined(parts: Sequence[Edges], names: Sequence[NDArray[np.int64]], computed: int) -> Edges:
    """One CSR of the first `computed` own nodes; columns = own nodes of all hops, then all rows
    received.
    """
    lengths = np.zeros(computed, np.int64)
    for part, name in zip(parts, names, strict=True):
        lengths[name[: part.indptr.size - 1]] = np.diff(part.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.empty(int(indptr[-1]), np.int32)
    kinds = [kind for kind in ("edge_w", "weight") if getattr(parts[0], kind) is not None]
    values = {kind: np.empty(indices.size, np.float32) for kind in kinds}
    for part, name in zip(parts, names, strict=True):
        size = np.diff(part.indptr)
        entry = np.arange(part.indices.size) + np.repeat(
            indptr[name[: size.size]] - part.indptr[:-1], size
        )
        indices[entry] = name[part.indices]
        for kind, out in values.items():
            out[entry] = getattr(part, kind)
    return Edges(indptr.astype(np.int32), indices, **values)


def _valued(how: Weights, edges: Edges, deg: NDArray[Any], *, sampled: bool) -> Matrix:
    if sampled:
        return sampled_matrix(how, edges, deg)
    rows = edges.indptr.size - 1
    weight = edges.weight if how.adj == "norm" else None
    return trimmed(how, 1, (rows, deg.size - rows), edges.indptr, edges.indices, deg, weight)[0]


def _narrowed(first: Matrix, rows: int, cols: int, name: NDArray[np.int64]) -> Matrix:
    """The first rows, their columns renamed."""
    nnz = int(first.indptr[rows])
    kind = first.indices.dtype
    return Matrix(
        (rows, cols),
        first.indptr[: rows + 1],
        name[first.indices[:nnz]].astype(kind),
        first.values[:nnz],
    )


def _send(
    links: Sequence[Links], rows: Sequence[NDArray[np.int64]], hop: int, ranks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(own nodes to send, how many to each rank) for the layer that computes rows of hops <=
    `hop`.
    """
    parts: list[NDArray[np.int64]] = []
    sent = np.zeros(ranks, np.int64)
    for p in range(ranks):
        for link, where in zip(links, rows, strict=True):
            span = slice(int(link.send_ptr[p]), int(link.send_ptr[p + 1]))
            chosen = where[link.send[span][link.send_used[span] >> hop & 1 > 0]]
            parts.append(chosen)
            sent[p] += chosen.size
    return np.concatenate(parts), sent
