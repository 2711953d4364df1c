"""Records become one, hop-major: outputs first, prefixes and blocks valid, columns sorted, no edge
between records.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.pack.layered import prefixes
from stockpot.stages.pack.record import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = ["Joined", "join"]

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Joined:
    """One or more records as one of n nodes, o outputs and h hops; `n_id` may repeat.

    Attributes
    ----------
    n_id, deg, deg_w, out_deg : [n], as in `Record`.
    num_sampled_nodes, block_ptr : i8[h], i4[h, K + 1].
    indptr, indices, weight : CSR of the first rows: all where the join was whole, hops <= layers -
        1 where trimmed.
    y, input_id : [o].
    kept : rows of each record that are in it, the first ones. whole : those of them whose edges are
        in it.
    rows : row of each of them here, i4[kept] for each record; None where a single record stands as
        it is.
    layers : of sampled records, from the outputs, as of `Record`; `layered`: each with edges of its
        own.
    """

    n_id: NDArray[np.integer[Any]]
    num_sampled_nodes: NDArray[np.int64]
    block_ptr: NDArray[np.int32]
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    deg: NDArray[np.int32]
    y: NDArray[np.int32]
    input_id: NDArray[np.int64]
    kept: tuple[int, ...]
    whole: tuple[int, ...]
    rows: tuple[NDArray[np.int32], ...] | None = None
    weight: NDArray[np.float32] | None = None
    deg_w: NDArray[np.float32] | None = None
    out_deg: NDArray[np.int32] | None = None
    layers: tuple[Layer, ...] | None = None

    @property
    def layered(self) -> bool:
        """Whether each layer has edges of its own, and `indptr` and `indices` are empty."""
        return self.indptr.size == 0

    @property
    def symmetric(self) -> bool:
        """Whether its edges are those of an undirected graph without weights: i -> j and j -> i, of
        the same worth.
        """
        return self.out_deg is None and self.weight is None and self.layers is None


@njit(cache=True, nogil=True)
def _positions(
    block_ptr: NDArray[np.int32],
    base: NDArray[np.int64],
    rows: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    """Give every row its place by (hop, block, record, row).

    Parameters
    ----------
    block_ptr : i4[records, hops, K + 1], missing hops empty.
    base : i8[records], first of each record's entries in `rows`.
    rows : i4[n], filled. out : i4[hops, K + 1], joined block pointers, filled.
    """
    place = 0
    records, hops, ends = block_ptr.shape
    for h in range(hops):
        for b in range(ends - 1):
            out[h, b] = place
            for r in range(records):
                for i in range(block_ptr[r, h, b], block_ptr[r, h, b + 1]):
                    rows[base[r] + i] = place
                    place += 1
        out[h, ends - 1] = place


@njit(cache=True, nogil=True)
def _edges(
    rows: NDArray[np.int32],
    base: NDArray[np.int64],
    csr_rows: NDArray[np.int64],
    indptr: NDArray[np.int32],
    indptr_base: NDArray[np.int64],
    indices: NDArray[np.int32],
    indices_base: NDArray[np.int64],
    weight: NDArray[np.float32],
    out_indptr: NDArray[np.int32],
    out_indices: NDArray[np.int32],
    out_weight: NDArray[np.float32],
) -> None:
    """Remap every row; the map keeps the order inside a record, so columns stay sorted."""
    weighted = weight.size > 0
    out_indptr[0] = 0
    for r in range(base.size):
        for i in range(csr_rows[r]):
            k = indptr_base[r] + i
            out_indptr[rows[base[r] + i] + 1] = indptr[k + 1] - indptr[k]
    for i in range(out_indptr.size - 1):
        out_indptr[i + 1] += out_indptr[i]
    for r in range(base.size):
        for i in range(csr_rows[r]):
            k = indptr_base[r] + i
            place = out_indptr[rows[base[r] + i]]
            for e in range(indices_base[r] + indptr[k], indices_base[r] + indptr[k + 1]):
                out_indices[place] = rows[base[r] + indices[e]]
                if weighted:
                    out_weight[place] = weight[e]
                place += 1


def join(records: Sequence[Record], layers: int | None = None) -> Joined:
    """Join records, order-preserving inside each.

    Parameters
    ----------
    records : at least one, all directed or none, all weighted or none.
    layers : keep only what a model of that many layers needs: nodes of hops <= layers, rows of hops
        <= layers - 1. 0: the outputs, without edges.

    Returns
    -------
    Joined
        Views where there is one record; else O(nodes + edges + hops * blocks * records).

    Raises
    ------
    BadInput
        The step is too large for 32-bit local ids.
    """
    ends = [np.cumsum(r.num_sampled_nodes) for r in records]
    kept = [int(e[-1] if layers is None else e[min(layers, e.size - 1)]) for e in ends]
    whole = [int(e[-1] if layers is None else e[min(layers - 1, e.size - 1)]) for e in ends]
    layered = records[0].layered
    if layered or layers == 0:
        whole = [0] * len(records)  # no one CSR, or no edges
    hops = max(e.size if layers is None else min(layers + 1, e.size) for e in ends)
    edges = [
        0 if layers == 0 else r.num_edges if layered else int(r.indptr[w])
        for r, w in zip(records, whole, strict=True)
    ]
    if sum(edges) > INT32_MAX or sum(kept) > INT32_MAX:
        raise BadInput(
            f"step of {len(records)} records: expected at most {INT32_MAX} nodes and edges, "
            f"found {sum(kept)} and {sum(edges)}",
            fix="lower train.per_step",
        )
    first = records[0]
    if len(records) == 1:
        n, w, e = kept[0], whole[0], edges[0]
        pointer, indices = (
            (first.indptr, first.indices) if layered else (first.indptr[: w + 1], first.indices[:e])
        )
        return Joined(
            n_id=first.n_id[:n],
            num_sampled_nodes=first.num_sampled_nodes[:hops].astype(np.int64),
            block_ptr=first.block_ptr[:hops],
            indptr=pointer,
            indices=indices,
            deg=first.deg[:n],
            y=first.y,
            input_id=first.input_id,
            kept=(n,),
            whole=(w,),
            weight=None if first.weight is None else first.weight[:e],
            deg_w=None if first.deg_w is None else first.deg_w[:n],
            out_deg=None if first.out_deg is None else first.out_deg[:n],
            layers=first.layers if first.layers is None else first.layers[:layers],
        )
    block_ptr = np.zeros((len(records), hops, first.block_ptr.shape[1]), np.int32)
    for r, record in enumerate(records):
        h = min(hops, len(record.block_ptr))
        block_ptr[r, :h] = record.block_ptr[:h]
    base = _starts(kept)
    total = int(base[-1])
    rows, joined_ptr = np.empty(total, np.int32), np.empty(block_ptr.shape[1:], np.int32)
    _positions(block_ptr, base[:-1], rows, joined_ptr)

    whole_csr = Layer(np.zeros(0, np.int32), np.zeros(0, np.int32))
    if not layered:
        heads = [
            Layer(
                r.indptr[: w + 1], r.indices[:e], weight=None if r.weight is None else r.weight[:e]
            )
            for r, w, e in zip(records, whole, edges, strict=True)
        ]
        whole_csr = _remapped(rows, base, heads)
    sampled = None
    if first.layers is not None:
        used = len(first.layers[:layers])
        if layered:
            of_layer = zip(*((r.layers or ())[:used] for r in records), strict=True)
            sampled = tuple(_remapped(rows, base, parts) for parts in of_layer)
        else:
            sampled = prefixes(whole_csr.indptr, whole_csr.indices, _hops(joined_ptr)[: used + 1])
    outputs = np.concatenate(
        [rows[b : b + r.num_outputs] for b, r in zip(base, records, strict=False)]
    )
    return Joined(
        n_id=_placed(rows, [r.n_id[:n] for r, n in zip(records, kept, strict=True)]),
        num_sampled_nodes=_hops(joined_ptr).astype(np.int64),
        block_ptr=joined_ptr,
        indptr=whole_csr.indptr,
        indices=whole_csr.indices,
        deg=_placed(rows, [r.deg[:n] for r, n in zip(records, kept, strict=True)]),
        y=_placed(outputs, [r.y for r in records]),
        input_id=_placed(outputs, [r.input_id for r in records]),
        kept=tuple(kept),
        whole=tuple(whole),
        rows=tuple(rows[a:b] for a, b in pairwise(base)),
        weight=whole_csr.weight,
        deg_w=_optional(rows, kept, [r.deg_w for r in records]),
        out_deg=_optional(rows, kept, [r.out_deg for r in records]),
        layers=sampled,
    )


def _remapped(rows: NDArray[np.int32], base: NDArray[np.int64], parts: Sequence[Layer]) -> Layer:
    """One CSR of those of the first rows of each record; `rows`, `base` as of `_edges`."""
    sizes = [part.indptr.size - 1 for part in parts]
    indptr, indices = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("indptr", "indices")
    )
    starts = (
        _starts([size + 1 for size in sizes])[:-1],
        _starts([part.indices.size for part in parts])[:-1],
    )

    def moved(
        values: NDArray[np.float32],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        out = (
            np.zeros(sum(sizes) + 1, np.int32),
            np.empty(indices.size, np.int32),
            np.empty(values.size, np.float32),
        )
        _edges(
            rows,
            base[:-1],
            np.asarray(sizes, np.int64),
            indptr,
            starts[0],
            indices,
            starts[1],
            values,
            *out,
        )
        return out

    names = [name for name in ("edge_w", "weight") if getattr(parts[0], name) is not None]
    done = {name: moved(np.concatenate([getattr(part, name) for part in parts])) for name in names}
    pointer, columns, _ = done[names[0]] if names else moved(np.zeros(0, np.float32))
    return Layer(pointer, columns, **{name: found[2] for name, found in done.items()})


def _hops(block_ptr: NDArray[np.int32]) -> NDArray[np.int32]:
    """Nodes of each hop."""
    counts: NDArray[np.int32] = block_ptr[:, -1] - block_ptr[:, 0]
    return counts


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _placed(rows: NDArray[np.int32], parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    out = np.empty(rows.size, parts[0].dtype)
    out[rows] = np.concatenate(parts)
    return out


def _optional(
    rows: NDArray[np.int32], kept: Sequence[int], parts: Sequence[NDArray[Any] | None]
) -> NDArray[Any] | None:
    present = [p[:n] for p, n in zip(parts, kept, strict=True) if p is not None]
    return _placed(rows, present) if present else None
