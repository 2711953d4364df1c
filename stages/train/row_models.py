"""SGC and SIGN: models of feature rows that the graph's matrix has multiplied, which read no edge.

A row is [x, Mx, .., M^K x] of one node (stage `propagate`). Records need no edges for them; where
they have some, the outputs' rows alone are read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from stockpot.stages.codec.coded_rows import dense, linear
from stockpot.stages.kernels.sparse_product import norm_relu_dropout
from stockpot.stages.row_sizes import linear_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.codec.coded_rows import Coded
    from stockpot.stages.step import Adj

__all__ = ["SGC", "SIGN", "RowModel"]


class RowModel(nn.Module):
    """A function of each row by itself, behind the interface of
    `stockpot.stages.train.model.Model`.

    Attributes
    ----------
    config, generator : as of `Model`.
    adj, shares, transposes : no matrix is read.
    coded : whether a step's features may stay codes.
    """

    adj = "plain"
    shares = False
    transposes = "none"
    coded = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.columns = int(config["num_features"]) // (int(config["hops"]) + 1)
        self.generator: torch.Generator | None = None

    def reset_parameters(self) -> None:
        """As torch and torch_geometric initialise a linear layer: uniform in +- 1 / sqrt(fan_in)
        for weight and bias.
        """
        for part in self.modules():
            if isinstance(part, nn.Linear):
                bound = 1 / math.sqrt(part.in_features)
                for parameter in part.parameters():
                    nn.init.uniform_(parameter, -bound, bound)
            elif isinstance(part, nn.LayerNorm):
                part.reset_parameters()

    def forward(self, x: Tensor | Coded, adjs: Sequence[Adj] | Adj = ()) -> Tensor:
        """Logits f4[n, num_classes] of rows f4[n, num_features], or of their codes; `adjs` are not
        looked at.
        """
        del adjs
        return self.rows(x)

    def rows(self, x: Tensor | Coded) -> Tensor:
        """Logits of rows."""
        raise NotImplementedError


class SGC(RowModel):
    """Logistic regression on M^K x (arXiv 1902.07153): torch_geometric's `SGConv` of K hops, whose
    parameters have the same names. It reads the last hop's columns alone.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        ((_, columns, classes),) = linear_layers(config)
        self.lin = nn.Linear(columns, classes)

    def rows(self, x: Tensor | Coded) -> Tensor:
        if isinstance(x, Tensor):
            return cast("Tensor", self.lin(x[:, -self.columns :]))
        before = x.shape[1] - self.columns
        return linear(x, functional.pad(self.lin.weight, (before, 0))) + self.lin.bias


class SIGN(RowModel):
    """Scalable inception network (arXiv 2004.11198): a linear map of each hop, side by side, then a
    perceptron of `head` linear layers.

    LayerNorm, ReLU and dropout stand before every layer of the perceptron, as in the other models.
    torch_geometric's example is this with `head` 1 and without LayerNorm.
    """

    coded = False  # hops are columns of their own: a step's features come decoded

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        (hops, columns, hidden), *head = linear_layers(config)
        self.dropout = float(config["dropout"])
        self.lins = nn.ModuleList(nn.Linear(columns, hidden) for _ in range(hops))
        self.head = nn.ModuleList(nn.Linear(a, b) for _, a, b in head)
        self.norms = nn.ModuleList(nn.LayerNorm(a) for _, a, _ in head)

    def rows(self, x: Tensor | Coded) -> Tensor:
        hops = dense(x).split(self.columns, 1)
        out = torch.cat([lin(hop) for lin, hop in zip(self.lins, hops, strict=True)], 1)
        for norm, lin in zip(self.norms, self.head, strict=True):
            out = lin(self._hidden(out, cast("nn.LayerNorm", norm)))
        return out

    def _hidden(self, out: Tensor, norm: nn.LayerNorm) -> Tensor:
        drop = self.dropout if self.training else 0.0
        return norm_relu_dropout(out, norm.weight, norm.bias, norm.eps, drop, self.generator)
