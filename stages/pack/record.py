"""A record is numpy views on the bytes it was stored in: reading one copies nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Layer", "Record"]


@dataclass(frozen=True)
class Layer:
    """Sampled in-edges of the first R rows of a batch, as a CSR of local ids with sorted columns,
    no self-loops.

    Attributes
    ----------
    indptr, indices : i4[R + 1], i4[m].
    edge_w : f4[m], 1 / p with mean 1 in each row: weights with which a mean over the sampled
        neighbours estimates that over all (Hájek). None where all are 1.
    weight : f4[m], weights of the graph; None where it has none.
    """

    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    edge_w: NDArray[np.float32] | None = None
    weight: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Record:
    """One packed mini-batch; n nodes, e edges, o outputs, h hops, K blocks. Arrays are read-only.

    Attributes
    ----------
    n_id : i4[n] (i8 in graphs of 2^31 nodes and more), ids of the ingested graph, outputs first, by
        (hop, block, id).
    num_sampled_nodes : i4[h], nodes per hop.
    block_ptr : i4[h, K + 1], first row of each block in each hop.
    indptr, indices : i4[n + 1], i4[e], row = destination, local ids, columns sorted, no self-loops.
    deg : i4[n], in-degree in the whole graph without self-loops.
    y : i4[o], -1 where unlabelled; multiclass labels of the outputs.
    input_id : i8[o], position in the sorted split.
    codes : u1[n, row_bytes], or u1[total] beside `code_indptr`, i4[n + 1], where rows vary in
        length. Where they are gathered, they are no part of the file (u1[0, 0] until they are
        read).
    codes_1, codes_1_rows : u1[k, bytes], i4[k] ascending, further stages of the rows that have
        them, where any have.
    t_indptr, t_indices, out_deg : the transpose and the out-degree i4[n]; directed graphs only.
    weight, deg_w : f4[e], f4[n], edge weights and their sums in the whole graph; weighted graphs
        only.
    layers : of sampled records, from the outputs: layer l has the rows of hops <= l and columns of
        hops <= l + 1. Where each has its own edges (form "layers"), `indptr` and `indices` are
        empty; else all are prefixes of that CSR.
    hag_* : shared partial sums of its CSR, see `stockpot.stages.hag.columns`; empty where the plain
    CSR is as fast.
    """

    n_id: NDArray[np.integer[Any]]
    num_sampled_nodes: NDArray[np.int32]
    block_ptr: NDArray[np.int32]
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    deg: NDArray[np.int32]
    y: NDArray[np.int32]
    input_id: NDArray[np.int64]
    codes: NDArray[np.uint8]
    code_indptr: NDArray[np.int32] | None = None
    codes_1: NDArray[np.uint8] | None = None
    codes_1_rows: NDArray[np.int32] | None = None
    t_indptr: NDArray[np.int32] | None = None
    t_indices: NDArray[np.int32] | None = None
    out_deg: NDArray[np.int32] | None = None
    weight: NDArray[np.float32] | None = None
    deg_w: NDArray[np.float32] | None = None
    layers: tuple[Layer, ...] | None = None
    hag_about: NDArray[np.int64] | None = None
    hag_level_ptr: NDArray[np.int32] | None = None
    hag_indptr: NDArray[np.int32] | None = None
    hag_indices: NDArray[np.int32] | None = None
    hag_out_indptr: NDArray[np.int32] | None = None
    hag_out_indices: NDArray[np.int32] | None = None
    hag_scale: NDArray[np.float32] | None = None

    @property
    def num_nodes(self) -> int:
        """Rows of the record."""
        return self.n_id.size

    @property
    def num_edges(self) -> int:
        """Stored edges, without self-loops; of form "layers" those of all layers."""
        if self.layered and self.layers is not None:
            return sum(layer.indices.size for layer in self.layers)
        return self.indices.size

    @property
    def layered(self) -> bool:
        """Whether each layer has edges of its own."""
        return self.indptr.size == 0

    @property
    def num_outputs(self) -> int:
        """Nodes of hop 0."""
        return self.y.size
