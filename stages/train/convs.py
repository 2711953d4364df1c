"""Convolutions with torch_geometric's semantics and parameter names, on matrices whose transpose is
given.

Each is called with `project(x)` of the columns, its matrix, and, where the rows are not the first
columns, `project` of the rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from stockpot.stages.codec.coded_rows import Coded, dense, first_rows, linear
from stockpot.stages.kernels.layer_product import layer_product
from stockpot.stages.kernels.sparse_product import reads, spmm
from stockpot.stages.train.attention import attend

if TYPE_CHECKING:
    from stockpot.stages.step import Adj

__all__ = [
    "Conv",
    "GATConv",
    "GCNConv",
    "GINConv",
    "LSTMConv",
    "SAGEConv",
    "StoredConv",
    "first_may_project",
]

# one element of a sparse product costs about as much as 6 multiply-adds of a dense one (measured)
_SPMM_COST = 6


def _aggregate_first(adj: Adj, x: Tensor | Coded, out_dim: int) -> bool:
    """Whether (A x) W is cheaper than A (x W), forward and backward counted; the results are the
    same.
    """
    rows, cols = adj.csr.shape
    in_dim = x.shape[1]
    nnz = reads(adj.csr)
    if isinstance(x, Coded):
        backward = torch.is_grad_enabled()
        if backward and adj.t_csr is None:
            return True
        first = x.decode_cost + _SPMM_COST * nnz * in_dim + (1 + backward) * rows * in_dim * out_dim
        last = (
            x.linear_cost(out_dim, backward=backward) + (1 + backward) * _SPMM_COST * nnz * out_dim
        )
        return first <= last
    passes = 3 if x.requires_grad else 2
    first = (
        passes * rows * in_dim * out_dim + (2 if x.requires_grad else 1) * _SPMM_COST * nnz * in_dim
    )
    last = passes * cols * in_dim * out_dim + 2 * _SPMM_COST * nnz * out_dim
    return first <= last


def first_may_project(in_dim: int, out_dim: int) -> bool:
    """Whether the first layer may choose A (x W), whose gradient needs the transpose, for some
    matrix.

    Of feature rows; of codes it always may.
    """
    return (
        in_dim > 2 * out_dim
    )  # by `_aggregate_first` with rows <= cols and features without gradient


class Conv(nn.Module):
    """What all convolutions share."""

    def project(self, x: Tensor | Coded) -> Tensor | Coded:
        """What a layer computes for every column alone, before any edge: nothing, unless a subclass
        says so.
        """
        return x

    @property
    def shift(self) -> Tensor | None:
        """The bias, where the convolution may leave it to the norm that follows: called with
        `biased=False`.
        """
        return None

    def stored(self, columns: int) -> tuple[Tensor, Tensor]:
        """The convolution of [x, .., M^(K-1) x] as a linear map of [x, .., M^K x], each of so many
        columns: (weight f[out, stored columns], bias f[out]).
        """
        raise NotImplementedError


class GCNConv(Conv):
    """`A (x W^T) + b`: torch_geometric's `GCNConv(normalize=False)` given the normalised matrix
    A.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_dim, out_dim, bias=False)
        self.bias = nn.Parameter(torch.empty(out_dim))

    def reset_parameters(self) -> None:
        _glorot(self.lin.weight)
        nn.init.zeros_(self.bias)

    @property
    def shift(self) -> Tensor | None:
        return self.bias

    def forward(
        self, x: Tensor | Coded, adj: Adj, own: Tensor | None = None, *, biased: bool = True
    ) -> Tensor:
        del own
        weight = self.lin.weight
        if _aggregate_first(adj, x, weight.shape[0]):
            bias = self.bias if biased else None
            return functional.linear(spmm(adj.csr, adj.t_csr, dense(x)), weight, bias)
        out = spmm(adj.csr, adj.t_csr, linear(x, weight))
        return out.add_(self.bias) if biased else out

    def stored(self, columns: int) -> tuple[Tensor, Tensor]:
        return functional.pad(self.lin.weight, (columns, 0)), self.bias


class SAGEConv(Conv):
    """`lin_l(A x) + lin_r(x_self)`: torch_geometric's `SAGEConv` (mean) given the row-mean matrix A
    without loops.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(in_dim, out_dim, bias=True)
        self.lin_r = nn.Linear(in_dim, out_dim, bias=False)

    def reset_parameters(self) -> None:
        # torch_geometric's Linear: kaiming-uniform with a = sqrt(5), so bound = 1 / sqrt(fan_in)
        # for both.
        bound = 1 / math.sqrt(self.lin_l.in_features)
        for parameter in (self.lin_l.weight, self.lin_l.bias, self.lin_r.weight):
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def shift(self) -> Tensor | None:
        return self.lin_l.bias

    def forward(
        self, x: Tensor | Coded, adj: Adj, own: Tensor | None = None, *, biased: bool = True
    ) -> Tensor:
        bias = self.lin_l.bias if biased else None
        if own is None and isinstance(x, Tensor):
            return layer_product(
                adj,
                x,
                self.lin_l.weight,
                bias,
                self.lin_r.weight,
                first=_aggregate_first(adj, x, self.lin_l.out_features),
            )
        mine = first_rows(x, adj.csr.shape[0]) if own is None else own
        if _aggregate_first(adj, x, self.lin_l.out_features):
            out = functional.linear(spmm(adj.csr, adj.t_csr, dense(x)), self.lin_l.weight, bias)
        else:
            out = spmm(adj.csr, adj.t_csr, linear(x, self.lin_l.weight))
            out = out if bias is None else out.add_(bias)
        if isinstance(mine, Coded):
            return out + linear(mine, self.lin_r.weight)
        return torch.addmm(out, mine, self.lin_r.weight.t())

    def stored(self, columns: int) -> tuple[Tensor, Tensor]:
        neighbours = functional.pad(self.lin_l.weight, (columns, 0))
        return neighbours + functional.pad(self.lin_r.weight, (0, columns)), self.lin_l.bias


class StoredConv(nn.Module):
    """A first layer whose aggregation is stored: features [x, Mx, .., M^K x] hold M of all columns
    but the last `columns`, so the convolution `conv` of those reads no edge.

    Its parameters are those of `conv`; on the whole graph so is its result.
    """

    def __init__(self, conv: Conv, columns: int) -> None:
        super().__init__()
        self.conv, self.columns = conv, columns

    def reset_parameters(self) -> None:
        cast("GCNConv | SAGEConv", self.conv).reset_parameters()

    def forward(self, x: Tensor | Coded, *, biased: bool = True) -> Tensor:
        weight, bias = self.conv.stored(self.columns)
        if isinstance(x, Tensor):
            return functional.linear(x, weight, bias if biased else None)
        out = linear(x, weight)
        return out + bias if biased else out


class LSTMConv(Conv):
    """`lin_l(LSTM(neighbours)) + lin_r(x_self)`: torch_geometric's `SAGEConv(aggr="lstm")` given
    the rows as sequences.

    The state after a row's last neighbour is taken; torch_geometric's reads on through the zeros
    that pad a row to the longest. Prefixes that rows share are stepped through once.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.aggr_module = nn.ModuleDict({"lstm": nn.LSTM(in_dim, in_dim, batch_first=True)})
        self.lin_l = nn.Linear(in_dim, out_dim, bias=True)
        self.lin_r = nn.Linear(in_dim, out_dim, bias=False)

    def reset_parameters(self) -> None:
        cast("nn.LSTM", self.aggr_module["lstm"]).reset_parameters()
        bound = 1 / math.sqrt(self.lin_l.in_features)  # as in SAGEConv
        for parameter in (self.lin_l.weight, self.lin_l.bias, self.lin_r.weight):
            nn.init.uniform_(parameter, -bound, bound)

    def project(self, x: Tensor | Coded) -> Tensor:
        """Features as they are, codes decoded."""
        return dense(x)

    def forward(self, x: Tensor | Coded, adj: Adj, own: Tensor | None = None) -> Tensor:
        x = dense(x)
        own = x[: adj.csr.shape[0]] if own is None else own
        lstm = cast("nn.LSTM", self.aggr_module["lstm"])
        weight_ih, weight_hh, bias_ih, bias_hh = lstm.all_weights[0]
        read = adj.csr.lstm(functional.linear(x, weight_ih, bias_ih + bias_hh), weight_hh)
        return functional.linear(read, self.lin_l.weight, self.lin_l.bias) + functional.linear(
            own, self.lin_r.weight
        )


class GINConv(Conv):
    """`nn(A x + (1 + eps) x_self)`: torch_geometric's `GINConv(train_eps=True)` given the 0/1
    matrix A without loops.

    `nn` is Linear, BatchNorm, ReLU, Linear (arXiv 1810.00826, section 7). Aggregation and the first
    Linear commute, so the cheaper order is taken. Sums over many neighbours are almost the same for
    all nodes; LayerNorm keeps what nodes share and BatchNorm takes it out, without which nothing is
    learnt on a dense graph.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        first, last = nn.Linear(in_dim, out_dim), nn.Linear(out_dim, out_dim)
        self.nn = nn.Sequential(first, nn.BatchNorm1d(out_dim), nn.ReLU(), last)
        self.eps = nn.Parameter(torch.empty(1))

    def reset_parameters(self) -> None:
        for part in self._parts():
            part.reset_parameters()
        nn.init.zeros_(self.eps)

    def _parts(self) -> tuple[nn.Linear, nn.BatchNorm1d, nn.Linear]:
        return cast(
            "tuple[nn.Linear, nn.BatchNorm1d, nn.Linear]", (self.nn[0], self.nn[1], self.nn[3])
        )

    def forward(self, x: Tensor | Coded, adj: Adj, own: Tensor | None = None) -> Tensor:
        first, norm, last = self._parts()
        weight, bias = first.weight, first.bias
        rows = adj.csr.shape[0]
        if _aggregate_first(adj, x, weight.shape[0]):
            x = dense(x)
            own = x[:rows] if own is None else own
            out = functional.linear(
                spmm(adj.csr, adj.t_csr, x) + (1 + self.eps) * own, weight, bias
            )
        else:
            z = linear(x, weight)
            own = z[:rows] if own is None else functional.linear(own, weight)
            out = spmm(adj.csr, adj.t_csr, z) + (1 + self.eps) * own + bias
        if rows == 1:  # no variance: normalised by what was seen so far, as in evaluation
            mean, var = norm.running_mean, norm.running_var
            out = functional.batch_norm(out, mean, var, norm.weight, norm.bias, eps=norm.eps)
        else:
            out = norm(out)
        return last(out.relu_())


class GATConv(Conv):
    """torch_geometric's `GATConv(add_self_loops=False)`: softmax over the pattern's entries of each
    row.

    A node attends to itself where the pattern has a diagonal. `concat`: heads side by side, else
    their mean.
    """

    def __init__(self, in_dim: int, out_dim: int, heads: int, *, concat: bool) -> None:
        super().__init__()
        self.heads, self.concat = heads, concat
        width = out_dim // heads if concat else out_dim
        self.lin = nn.Linear(in_dim, heads * width, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, width))
        self.att_dst = nn.Parameter(torch.empty(1, heads, width))
        self.bias = nn.Parameter(torch.empty(out_dim))

    def reset_parameters(self) -> None:
        for weight in (self.lin.weight, self.att_src, self.att_dst):
            _glorot(weight)
        nn.init.zeros_(self.bias)

    def project(self, x: Tensor | Coded) -> Tensor:
        """W x of every column, f[cols, heads * width]."""
        return linear(x, self.lin.weight)

    def forward(self, x: Tensor | Coded, adj: Adj, own: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)  # what `project` gave
        own = x[: adj.csr.shape[0]] if own is None else own
        out = attend(adj, x, self._scores(x, self.att_src), self._scores(own, self.att_dst))
        if not self.concat:
            out = out.view(out.shape[0], self.heads, self.att_src.shape[-1]).mean(1)
        return out + self.bias

    def _scores(self, x: Tensor, weight: Tensor) -> Tensor:
        """f[n, heads]: each head's part of x times its own vector, as one small dense product."""
        diagonal = torch.block_diag(*weight[0])  # [heads, heads * width]
        return functional.linear(x, diagonal)


def _glorot(weight: Tensor) -> None:
    bound = math.sqrt(6 / (weight.shape[-2] + weight.shape[-1]))
    nn.init.uniform_(weight, -bound, bound)
