"""Exact inference on the whole graph, layer by layer: every node sees all its neighbours, in blocks
of rows.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from stockpot.stages.hag.sequence import Sequences, read_order
from stockpot.stages.pack.layers import SEQUENCE, adjacency
from stockpot.stages.step import Adj
from stockpot.stages.train.foreign import Foreign
from stockpot.stages.train.row_models import RowModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.pack.layers import Matrix
    from stockpot.stages.stage import Reader
    from stockpot.stages.train.model import Network

__all__ = ["full_graph_logits", "graph_matrix"]

BLOCK_ROWS = 32_768
SEQUENCE_ROWS = 4096  # a state of several numbers for every entry of a block's rows


def graph_matrix(graph: Reader, model: Network) -> Matrix | None:
    """The matrix of a whole ingested graph as `model` reads it, None for one that reads no edge.
    O(N + E).
    """
    if isinstance(model, RowModel):
        return None
    config = model.config
    return adjacency(
        graph.array("indptr"),
        graph.array("indices"),
        weight=graph.array("weight") if graph.has("weight") else None,
        adj=model.adj,
        normalization=config["normalization"],
        mass=config["mass"],
        self_loops=config["self_loops"],
    )


def _block(
    matrix: Matrix,
    start: int,
    stop: int,
    device: torch.device,
    rank: NDArray[np.int64] | None = None,
) -> Adj:
    """Some rows of the matrix; with `rank`, the order their columns are read in, as sequences."""
    first, last = int(matrix.indptr[start]), int(matrix.indptr[stop])
    if rank is not None:
        ptr, columns = matrix.indptr[start : stop + 1] - first, matrix.indices[first:last]
        return Adj(Sequences(ptr, columns, matrix.shape[1], rank, lambda tensor: tensor.to(device)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        csr = torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr[start : stop + 1] - matrix.indptr[start]).to(device),
            torch.from_numpy(matrix.indices[first:last]).to(device),
            torch.from_numpy(matrix.values[first:last]).to(device),
            size=(stop - start, matrix.shape[1]),
            check_invariants=False,
        )
    return Adj(csr)  # no gradient is taken


def _row_logits(
    model: RowModel, x: Tensor, progress: Callable[[int, int, str], Any] | None
) -> Tensor:
    """Logits of every row, a block after the other: one pass."""
    parts = x.split(BLOCK_ROWS)
    found = []
    for part in parts:
        found.append(model.rows(part))
        if progress is not None:
            progress(len(found), len(parts), "all rows")
    return torch.cat(found)


@torch.no_grad()
def full_graph_logits(
    model: Network,
    matrix: Matrix | None,
    x: Tensor,
    progress: Callable[[int, int, str], Any] | None = None,
    shared: Adj | None = None,
) -> Tensor:
    """Logits of every node.

    Parameters
    ----------
    model : in eval mode.
    matrix : message passing matrix of the whole graph, from
        `stockpot.stages.pack.layers.adjacency`; None for a model that reads no edge.
    x : f4[N, num_features].
    progress : (blocks done, blocks of all layers, text).
    shared : the same matrix by a HAG, to be multiplied by instead, each layer in one piece.

    Returns
    -------
    f4[N, num_classes] on the device of `x`. O(layers (nnz + N dim) dim) time; two layers'
    activations of all nodes, f4[N, dim] each (three with attention), in memory, and of a block
    beside them. A model of one's own knows no layers: it sees the whole graph in one pass, with all
    its messages in memory.
    """
    if isinstance(model, RowModel):
        return _row_logits(model, x, progress)
    assert matrix is not None
    nodes = matrix.shape[0]
    if isinstance(model, Foreign):
        logits = model(x, _block(matrix, 0, nodes, x.device))
        if progress is not None:
            progress(1, 1, "full graph")
        return logits
    depth = len(model.convs)
    rank = read_order(np.diff(matrix.indptr)) if model.adj == SEQUENCE else None
    rows = BLOCK_ROWS if rank is None else SEQUENCE_ROWS
    starts = range(0, nodes, rows)
    for layer in range(depth):
        x = cast("Tensor", model.project(layer, x))
        if shared is not None:
            x = model.layer(layer, x, shared)
            if progress is not None:
                progress(layer + 1, depth, f"full graph, layer {layer + 1} of {depth}")
            continue
        out: Tensor | None = None
        for i, start in enumerate(starts):
            stop = min(start + rows, nodes)
            part = model.layer(layer, x, _block(matrix, start, stop, x.device, rank), x[start:stop])
            if out is None:
                out = torch.empty((nodes, part.shape[1]), dtype=part.dtype, device=part.device)
            out[start:stop] = part
            if progress is not None:
                progress(
                    layer * len(starts) + i + 1,
                    depth * len(starts),
                    f"full graph, layer {layer + 1} of {depth}",
                )
        assert out is not None
        x = out
    return x
