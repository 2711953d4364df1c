"""Aggregation over one fixed graph as an `nn.Module`: what a torch_geometric layer adds up, each
shared part once.

>>> aggregate = HagAggregation.from_edges(edge_index, num_nodes, "mean")  # doctest: +SKIP
>>> out = lin_l(aggregate(x)) + lin_r(x)  # as SAGEConv  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import check
from stockpot.stages.hag.product.levels import transposed
from stockpot.stages.hag.product.matrix import HagMatrix, extreme, product

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.hag.hag import Hag

__all__ = ["REDUCE", "HagAggregation"]

KEEP = 4
"""Reads an aggregation node must save to be worth its row of the buffer (see
`stockpot.stages.hag.search.shape`)."""

REDUCE = ("sum", "mean", "max", "min")


class HagAggregation(nn.Module):
    """`forward(x)` is what `torch_geometric.nn.SimpleConv(aggr=reduce)(x, edge_index)` gives, and
    its gradient.

    Parameters
    ----------
    hag : searched on the CSR `indptr`, `indices`, row = destination.
    indptr, indices : the CSR, whose checksum must be the HAG's.
    reduce : sum, mean, max or min over the row's entries; 0 where a row has none.
    left, right : f[rows], f[cols]; the sum is `left_i * sum_j right_j x_j`. `factors` finds them
        for edge weights.

    Notes
    -----
    Sums are re-associated: fp32 results differ from torch_geometric's in the last bits. Maxima and
    minima are bit-equal; their gradient goes to the first of equal entries. Runs on the device of
    `x` (float16, bfloat16, float32, float64).
    """

    def __init__(
        self,
        hag: Hag,
        indptr: NDArray[Any],
        indices: NDArray[Any],
        reduce: str = "sum",
        *,
        left: Tensor | None = None,
        right: Tensor | None = None,
    ) -> None:
        super().__init__()
        if reduce not in REDUCE:
            raise BadInput(f"reduce: expected {' | '.join(REDUCE)}, found {reduce}")
        check(hag, indptr, indices)
        for name, factor, size in (("left", left, hag.num_rows), ("right", right, hag.num_nodes)):
            if factor is not None and tuple(factor.shape) != (size,):
                raise BadInput(
                    f"{name}: expected one factor for each of {size}, found shape "
                    f"{tuple(factor.shape)}"
                )
            if factor is not None and reduce != "sum":
                raise BadInput(f"{name}: factors belong to reduce = sum, found {reduce}")
        if reduce == "mean":
            # The covered degree: what the HAG's few entries stand for, multiplicities counted.
            left = 1 / torch.from_numpy(np.diff(np.asarray(indptr)).clip(1)).double()
        self.reduce, self.shape = reduce, (hag.num_rows, hag.num_nodes)
        self._factors = left, right
        self._hag = hag
        self._turned: Hag | None = None if reduce in ("max", "min") else transposed(hag)
        self._made: dict[torch.device, tuple[HagMatrix, HagMatrix | None]] = {}

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        num_nodes: int,
        reduce: str = "sum",
        *,
        edge_weight: Tensor | None = None,
        capacity: float | None = None,
    ) -> HagAggregation:
        """Search a HAG for a graph and aggregate with it.

        Parameters
        ----------
        edge_index : int[2, E], source and destination; repeated edges count as often as they stand
            there.
        edge_weight : f[E], of the form left[destination] * right[source] (GCN's, random walks');
            others are refused.
        capacity : most aggregation nodes, as a share of the nodes; None: as many as save reads.

        Raises
        ------
        BadInput
            A node id or the capacity is out of range, ids are no integers, there is not one real
            weight for each edge, or weights do not factor: the first such edge is named.
        """
        _check_edges(edge_index, num_nodes, edge_weight)
        from stockpot.stages.hag.factors import csr_of, factors
        from stockpot.stages.hag.search.prepared import Settings
        from stockpot.stages.hag.search.search import search
        from stockpot.stages.hag.search.shape import Shape, build, outline

        indptr, indices, order = csr_of(edge_index.cpu().numpy(), num_nodes)
        left = right = None
        if edge_weight is not None:
            values = edge_weight.detach().cpu().double().numpy()[order]
            left, right = (torch.from_numpy(f) for f in factors(indptr, indices, values))
        settings = Settings(capacity=capacity)
        merges = search(
            indptr, indices, num_nodes, settings=settings, threads=torch.get_num_threads()
        )
        hag = build(merges, outline(merges, Shape(keep=KEEP)))
        return cls(hag, indptr, indices, reduce, left=left, right=right)

    def forward(self, x: Tensor) -> Tensor:
        """f[rows, dim] of `x` f[cols, dim]."""
        if x.dim() != 2 or x.shape[0] != self.shape[1]:
            raise BadInput(
                f"x: expected {self.shape[1]} rows of features, found shape {tuple(x.shape)}"
            )
        matrix, turned = self._matrices(x)
        if turned is None:
            return extreme(matrix, x, 1 if self.reduce == "max" else -1)
        return product(matrix, turned, x)

    def _matrices(self, x: Tensor) -> tuple[HagMatrix, HagMatrix | None]:
        if x.device not in self._made:
            left, right = (f if f is None else f.to(x.device) for f in self._factors)
            moved = None if x.device.type == "cpu" else lambda t: t.to(x.device)
            matrix = HagMatrix(self._hag, left, right, moved=moved)
            turned = (
                None if self._turned is None else HagMatrix(self._turned, right, left, moved=moved)
            )
            self._made[x.device] = matrix, turned
        return self._made[x.device]

    def extra_repr(self) -> str:
        return f"{self.reduce}, {self.shape[0]} rows, {self._hag.reads_ratio:.2f} x fewer reads"


def _check_edges(edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None) -> None:
    """Refuse edges or weights that are not what `HagAggregation.from_edges` says it takes; values
    are checked later.
    """
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int) or not 0 <= num_nodes < 2**31:
        raise BadInput(
            f"num_nodes: expected a whole number from 0, below 2^31, found {num_nodes!r}"
        )
    for name, value in (("edge_index", edge_index), ("edge_weight", edge_weight)):
        if not isinstance(value, torch.Tensor) and not (name == "edge_weight" and value is None):
            raise BadInput(
                f"{name}: expected a tensor, found {type(value).__name__}",
                fix=f"{name}=torch.as_tensor({name})",
            )
        if value is not None and value.layout != torch.strided:
            raise BadInput(
                f"{name}: expected a dense tensor, found layout {value.layout}",
                fix="torch_geometric.utils.to_edge_index(adj_t) gives edges of a sparse matrix",
            )
    kind = edge_index.dtype
    if kind.is_floating_point or kind.is_complex or kind is torch.bool:
        raise BadInput(
            f"edge_index: expected node ids as integers, found {kind}",
            fix="edge_index=edge_index.long()",
        )
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise BadInput(f"edge_index: expected shape (2, E), found {tuple(edge_index.shape)}")
    if edge_weight is None:
        return
    edges = edge_index.shape[1]
    if tuple(edge_weight.shape) != (edges,):
        column = tuple(edge_weight.shape) == (edges, 1)
        raise BadInput(
            f"edge_weight: expected one weight for each of {edges} edges, shape ({edges},), found "
            f"shape "
            f"{tuple(edge_weight.shape)}",
            fix="edge_weight=edge_weight.squeeze(1)" if column else None,
        )
    if edge_weight.dtype.is_complex or edge_weight.dtype is torch.bool:
        raise BadInput(f"edge_weight: expected real numbers, found {edge_weight.dtype}")
