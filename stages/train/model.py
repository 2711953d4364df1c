"""GCN and GraphSAGE with torch_geometric's semantics and parameter names, on matrices whose transpose is given.

A forward pass takes one `Adj` a layer (trimmed to the rows that layer needs), or the same one for all layers
(the whole graph); no pass ever transposes, sorts or normalises anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import BadInput
from stages.step import Adj
from stages.train.kernels import norm_relu_dropout, spmm
from stages.train.state import read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["GCN", "MODELS", "SAGE", "Model", "build_model", "load_model", "save_model"]

_SPMM_COST = 6  # one element of a sparse product costs about as much as 6 multiply-adds of a dense one (measured)


def _aggregate_first(adj: Adj, in_dim: int, out_dim: int, *, backward_x: bool) -> bool:
    """Whether (A x) W is cheaper than A (x W), forward and backward counted; the results are the same."""
    rows, cols = adj.csr.shape
    nnz = adj.csr.values().numel()
    passes = 3 if backward_x else 2
    first = passes * rows * in_dim * out_dim + (2 if backward_x else 1) * _SPMM_COST * nnz * in_dim
    last = passes * cols * in_dim * out_dim + 2 * _SPMM_COST * nnz * out_dim
    return first <= last


class GCNConv(nn.Module):
    """`A (x W^T) + b`: torch_geometric's `GCNConv(normalize=False)` given the normalised matrix A."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_dim, out_dim, bias=False)
        self.bias = nn.Parameter(torch.empty(out_dim))

    def reset_parameters(self) -> None:
        _glorot(self.lin.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, adj: Adj, own: Tensor | None = None) -> Tensor:  # noqa: ARG002 - as SAGEConv
        weight = self.lin.weight
        out_dim, in_dim = weight.shape
        if _aggregate_first(adj, in_dim, out_dim, backward_x=x.requires_grad):
            return functional.linear(spmm(adj.csr, adj.t_csr, x), weight, self.bias)
        return spmm(adj.csr, adj.t_csr, functional.linear(x, weight)) + self.bias


class SAGEConv(nn.Module):
    """`lin_l(A x) + lin_r(x_self)`: torch_geometric's `SAGEConv` (mean) given the row-mean matrix A without loops."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(in_dim, out_dim, bias=True)
        self.lin_r = nn.Linear(in_dim, out_dim, bias=False)

    def reset_parameters(self) -> None:
        # torch_geometric's Linear: kaiming-uniform with a = sqrt(5), so bound = 1 / sqrt(fan_in) for both.
        bound = 1 / math.sqrt(self.lin_l.in_features)
        for parameter in (self.lin_l.weight, self.lin_l.bias, self.lin_r.weight):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, adj: Adj, own: Tensor | None = None) -> Tensor:
        out_dim, in_dim = self.lin_l.weight.shape
        own = x[: adj.csr.shape[0]] if own is None else own
        if _aggregate_first(adj, in_dim, out_dim, backward_x=x.requires_grad):
            out = functional.linear(spmm(adj.csr, adj.t_csr, x), self.lin_l.weight, self.lin_l.bias)
        else:
            out = spmm(adj.csr, adj.t_csr, functional.linear(x, self.lin_l.weight)) + self.lin_l.bias
        return torch.addmm(out, own, self.lin_r.weight.t())


class Model(nn.Module):
    """Convolutions, each but the last followed by LayerNorm, ReLU and dropout; the last gives logits.

    Attributes
    ----------
    config : what `build_model` was given, stored with the weights.
    generator : source of the dropout masks; torch's default generator where None.
    """

    conv: type[GCNConv | SAGEConv]

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        layers, hidden = int(config["layers"]), int(config["hidden"])
        dims = [int(config["num_features"]), *[hidden] * (layers - 1), int(config["num_classes"])]
        self.dropout = float(config["dropout"])
        self.convs = nn.ModuleList(self.conv(dims[i], dims[i + 1]) for i in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers - 1))
        self.generator: torch.Generator | None = None

    def reset_parameters(self) -> None:
        for conv in self.convs:
            cast("GCNConv | SAGEConv", conv).reset_parameters()
        for norm in self.norms:
            cast("nn.LayerNorm", norm).reset_parameters()

    def forward(self, x: Tensor, adjs: Sequence[Adj] | Adj) -> Tensor:
        """Logits of the rows of the last matrix.

        Parameters
        ----------
        x : f4[cols of the first matrix, num_features].
        adjs : one matrix a layer, the first applied first; or one square matrix for every layer.

        Returns
        -------
        f4[rows of the last matrix, num_classes]
        """
        depth = len(self.convs)
        per_layer = [adjs] * depth if isinstance(adjs, Adj) else list(adjs)
        if len(per_layer) != depth:
            raise ValueError(f"the model has {depth} layers, the step brings {len(per_layer)} matrices")
        for i in range(depth):
            x = self.layer(i, x, per_layer[i])
        return x

    def layer(self, i: int, x: Tensor, adj: Adj, own: Tensor | None = None) -> Tensor:
        """Layer `i` alone: f4[rows, out]. `own`: features of the rows, where they are not the first of `x`."""
        x = self.convs[i](x, adj, own)
        if i == len(self.norms):
            return x
        norm = cast("nn.LayerNorm", self.norms[i])
        return norm_relu_dropout(
            x, norm.weight, norm.bias, norm.eps, self.dropout if self.training else 0.0, self.generator
        )


class GCN(Model):
    """Graph convolutional network (arXiv 1609.02907); reads `adj="norm"`."""

    conv = GCNConv
    adj = "norm"


class SAGE(Model):
    """GraphSAGE with mean aggregation (arXiv 1706.02216); reads `adj="mean"`."""

    conv = SAGEConv
    adj = "mean"


MODELS: dict[str, type[GCN | SAGE]] = {"gcn": GCN, "sage": SAGE}


def _glorot(weight: Tensor) -> None:
    bound = math.sqrt(6 / (weight.shape[0] + weight.shape[1]))
    nn.init.uniform_(weight, -bound, bound)


def build_model(config: Mapping[str, Any], seed: int | None = None) -> GCN | SAGE:
    """Build a model and initialise it as torch_geometric does.

    Parameters
    ----------
    config : "model" ("gcn" | "sage"), "num_features", "hidden", "num_classes", "layers", "dropout";
        further keys are kept and stored.
    seed : seed of the initial weights; torch's global generator where None.

    Raises
    ------
    BadInput
        For a model that this version does not have.
    """
    name = str(config["model"])
    if name not in MODELS:
        raise BadInput(f"train.model: {name!r} is not available in this version; expected one of gcn, sage")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = MODELS[name](config)
        model.reset_parameters()
    return model


def save_model(path: Path, model: Model, metadata: Mapping[str, Any]) -> None:
    """Write weights, configuration and `metadata` (JSON) as one safetensors file, atomically."""
    write_state(path, model.state_dict(), {"config": model.config, **metadata})


def load_model(path: Path) -> GCN | SAGE:
    """Read a model written by `save_model`, in eval mode."""
    state, metadata = read_state(path)
    model = build_model(metadata["config"])
    model.load_state_dict(state)
    return model.eval()
