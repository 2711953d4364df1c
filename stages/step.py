"""The one type a model sees: features, labels and per-layer adjacency of one training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stockpot.stages.codec.coded_rows import Coded

__all__ = ["Adj", "Sparse", "Step"]

Sparse = Any
"""A sparse CSR tensor, or what has its shape: a `HagMatrix`, which multiplies a
dense matrix, or `stockpot.stages.hag.sequence.Sequences`, whose rows are read in order."""


@dataclass(frozen=True)
class Adj:
    """One layer's message passing matrix with what its backward pass needs, so that no pass has to
    transpose.

    Attributes
    ----------
    csr : sparse f4[rows, cols]; row = destination, local ids; rows = nodes of hops <= L - l, cols =
        of hops <= L - l + 1. The rows are the first nodes of the columns: the self feature of row i
        is x[i].
    t_csr : sparse f4[cols, rows], the exact transpose of `csr`; None where no backward pass reads
        it.
    places : i4[nnz], where each entry of `t_csr` stands in `csr`: values that are computed while
        training (attention) are transposed by it. None where no backward pass reads it.
    """

    csr: Sparse
    t_csr: Sparse | None = None
    places: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One training step: one or more joined records, trimmed for a model of `len(adjs)` layers.

    Attributes
    ----------
    x : f4[num_nodes, num_features], rows of hops <= L, outputs first; or their codes, for a model
        that reads them.
    adjs : one `Adj` per layer, the first applied first.
    y : i8[batch_size], -1 where unlabelled.
    n_id : i8[num_nodes], ids of the ingested graph.
    input_id : i8[batch_size], position in the sorted split.
    num_sampled_nodes : nodes per hop, hops 0..L.
    batch_size : number of outputs.
    """

    x: Tensor | Coded
    adjs: Sequence[Adj]
    y: Tensor
    n_id: Tensor
    input_id: Tensor
    num_sampled_nodes: tuple[int, ...]
    batch_size: int
