"""GCN, GraphSAGE, GIN and GAT with torch_geometric's semantics and parameter names, models of rows,
and models of one's own.

A forward pass takes one `Adj` a layer (trimmed to the rows that layer needs), or the same one for
all layers (the whole graph); no pass ever transposes, sorts or normalises anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from stockpot.stages.errors import BadInput, sensible
from stockpot.stages.kernels.sparse_product import norm_relu_dropout
from stockpot.stages.step import Adj
from stockpot.stages.train.convs import (
    GATConv,
    GCNConv,
    GINConv,
    LSTMConv,
    SAGEConv,
    StoredConv,
    first_may_project,
)
from stockpot.stages.train.factory import factory_of
from stockpot.stages.train.foreign import Foreign
from stockpot.stages.train.row_models import SGC, SIGN, RowModel
from stockpot.stages.train.state import read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stockpot.stages.codec.coded_rows import Coded
    from stockpot.stages.train.convs import Conv

__all__ = [
    "GAT",
    "GCN",
    "GIN",
    "LSTM",
    "MODELS",
    "SAGE",
    "Model",
    "Network",
    "build_model",
    "load_model",
    "save_model",
]


class Model(nn.Module):
    """Convolutions, each but the last followed by LayerNorm, ReLU and dropout; the last gives
    logits.

    Attributes
    ----------
    config : what `build_model` was given, stored with the weights.
    generator : source of the dropout masks; torch's default generator where None.
    adj : the matrix it reads, see `stockpot.stages.pack.layers.Weights`.
    shares : whether its matrices may be HAGs, products that add shared partial sums once.
    coded : whether a step's features may stay codes.
    transposes : what of it a training step's backward pass reads, see
        `stockpot.stages.loader.options.Form`.
    """

    adj = "plain"
    shares = True
    coded = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        layers, hidden = int(config["layers"]), int(config["hidden"])
        dims = [int(config["num_features"]), *[hidden] * (layers - 1), int(config["num_classes"])]
        self.dropout = float(config["dropout"])
        self.stored: StoredConv | None = None
        self.stored_norm: nn.LayerNorm | None = None
        if hops := int(config.get("stored", 0)):
            columns = dims[0] // (hops + 1)
            self.stored = StoredConv(self.conv(hops * columns, hidden, last=False), columns)
            self.stored_norm = nn.LayerNorm(hidden)
            dims[0] = hidden
        self.convs = nn.ModuleList(
            self.conv(dims[i], dims[i + 1], last=i == layers - 1) for i in range(layers)
        )
        every = self.stored is not None or first_may_project(dims[0], dims[1])
        self.transposes = "all" if every else "inner"
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers - 1))
        self.generator: torch.Generator | None = None

    def conv(self, in_dim: int, out_dim: int, *, last: bool) -> Conv:
        """One convolution of the model."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        for part in (self.stored, *self.convs):
            if part is not None:
                cast("Any", part).reset_parameters()
        for norm in (self.stored_norm, *self.norms):
            if norm is not None:
                cast("nn.LayerNorm", norm).reset_parameters()

    def forward(self, x: Tensor | Coded, adjs: Sequence[Adj] | Adj) -> Tensor:
        """Logits of the rows of the last matrix.

        Parameters
        ----------
        x : f4[cols of the first matrix, num_features], or their codes.
        adjs : one matrix a layer, the first applied first; or one square matrix for every layer.

        Returns
        -------
        f4[rows of the last matrix, num_classes]
        """
        depth = len(self.convs)
        per_layer = [adjs] * depth if isinstance(adjs, Adj) else list(adjs)
        if len(per_layer) != depth:
            raise ValueError(
                f"the model has {depth} layers, the step brings {len(per_layer)} matrices"
            )
        for i in range(depth):
            x = self.layer(i, self.project(i, x), per_layer[i])
        assert isinstance(x, Tensor)  # there is a layer at least
        return x

    def project(self, i: int, x: Tensor | Coded) -> Tensor | Coded:
        """What layer `i` computes of each node alone, before any edge; of layer 0, the layer before
        it too, where the features bring its aggregation.
        """
        if i == 0 and self.stored is not None:
            shift = self._left_to_norm(self.stored.conv)
            out = self.stored(x, biased=shift is None)
            x = self._hidden(out, cast("nn.LayerNorm", self.stored_norm), shift)
        return cast("Conv", self.convs[i]).project(x)

    def layer(self, i: int, x: Tensor | Coded, adj: Adj, own: Tensor | None = None) -> Tensor:
        """Layer `i` after `project`: f4[rows, out]. `own`: the rows, where they are not the first
        of `x`.
        """
        conv = cast("Conv", self.convs[i])
        if i == len(self.norms):
            last: Tensor = conv(x, adj, own)
            return last
        shift = self._left_to_norm(conv)
        out = conv(x, adj, own) if shift is None else conv(x, adj, own, biased=False)
        return self._hidden(out, cast("nn.LayerNorm", self.norms[i]), shift)

    def _left_to_norm(self, conv: Conv) -> Tensor | None:
        """The bias that the norm after `conv` adds, which sums its gradient on the way back."""
        return conv.shift if self.training else None

    def _hidden(self, out: Tensor, norm: nn.LayerNorm, shift: Tensor | None) -> Tensor:
        """A layer's result as the next one reads it; `shift` is still to be added to it."""
        return norm_relu_dropout(
            out,
            norm.weight,
            norm.bias,
            norm.eps,
            self.dropout if self.training else 0.0,
            self.generator,
            shift,
        )


class GCN(Model):
    """Graph convolutional network (arXiv 1609.02907); reads `adj="norm"`."""

    adj = "norm"

    def conv(self, in_dim: int, out_dim: int, *, last: bool) -> Conv:  # noqa: ARG002
        return GCNConv(in_dim, out_dim)


class SAGE(Model):
    """GraphSAGE with mean aggregation (arXiv 1706.02216); reads `adj="mean"`."""

    adj = "mean"

    def conv(self, in_dim: int, out_dim: int, *, last: bool) -> Conv:  # noqa: ARG002
        return SAGEConv(in_dim, out_dim)


class LSTM(Model):
    """GraphSAGE with an LSTM over neighbours by falling degree (arXiv 1706.02216); reads
    `adj="sequence"`.
    """

    adj = "sequence"
    shares = False  # not sums: its rows share prefixes instead

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.transposes = "none"

    def conv(self, in_dim: int, out_dim: int, *, last: bool) -> Conv:  # noqa: ARG002
        return LSTMConv(in_dim, out_dim)


class GIN(Model):
    """Graph isomorphism network (arXiv 1810.00826) with a trained eps; reads `adj="plain"`."""

    def conv(self, in_dim: int, out_dim: int, *, last: bool) -> Conv:  # noqa: ARG002
        return GINConv(in_dim, out_dim)


class GAT(Model):
    """Graph attention network (arXiv 1710.10903): heads side by side in hidden layers, their mean
    in the last.

    Reads `adj="plain+loops"`, or "plain" where `self_loops` is off: attention is softmax over the
    row's entries.
    """

    shares = False  # its weights differ by edge

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.heads = int(config["heads"])
        super().__init__(config)
        self.adj = "plain+loops" if config.get("self_loops", True) else "plain"
        self.transposes = "places"

    def conv(self, in_dim: int, out_dim: int, *, last: bool) -> Conv:
        return GATConv(in_dim, out_dim, self.heads, concat=not last)


Network = Model | RowModel | Foreign
MODELS: dict[str, type[Model | RowModel]] = {
    "gcn": GCN,
    "sage": SAGE,
    "gat": GAT,
    "gin": GIN,
    "sage-lstm": LSTM,
    "sgc": SGC,
    "sign": SIGN,
}


def build_model(config: Mapping[str, Any], seed: int | None = None) -> Network:
    """Build a model and initialise it as torch_geometric does, or as its factory does.

    Parameters
    ----------
    config : "model" (of `MODELS`, or "package.module:factory"), "num_features", "hidden",
        "num_classes", "layers", "dropout", "heads" for gat; for sgc and sign what
        `stockpot.stages.row_sizes.linear_layers` takes; "source_digest" for a factory;
        further keys are kept and stored.
    seed : seed of the initial weights; torch's global generator where None.

    Raises
    ------
    BadInput
        For a model that does not exist, or a factory that cannot be imported or gives no model.
    Conflict
        The factory's source is not the one the configuration was made with.
    """
    name = str(config["model"])
    if name not in MODELS and ":" not in name:
        raise BadInput(
            f"train.model: expected {', '.join(MODELS)} or package.module:factory, found {name!r}"
        )
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name not in MODELS:
            made = factory_of(name, config["source_digest"])(dict(config))
            return made if isinstance(made, Model) else Foreign(made, config)
        model = MODELS[name](config)
        model.reset_parameters()
    return model


def save_model(path: Path, model: Network, metadata: Mapping[str, Any]) -> None:
    """Write weights, configuration and `metadata` (JSON) as one safetensors file, atomically."""
    write_state(path, model.state_dict(), {"config": model.config, **metadata})


def load_model(path: Path) -> Network:
    """Read a model written by `save_model`, in eval mode.

    Raises
    ------
    Corrupt
        The file is damaged, or its configuration is not that of its tensors.
    """
    state, metadata = read_state(path)
    with sensible(f"{path}: the model's configuration"):
        config = metadata["config"]
        if config["model"] in MODELS:
            _hold_against(config, state)
        model = build_model(config)
        model.load_state_dict(state)
    return model.eval()


def _hold_against(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuse a configuration of other tensors before anything is allocated by what it says."""
    with torch.device("meta"):
        declared = MODELS[config["model"]](config).state_dict()
    for name in sorted(declared.keys() | state.keys()):
        shapes = [tuple(part[name].shape) if name in part else None for part in (declared, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"it declares {name} as {shapes[0]}, the file has {shapes[1]}")
