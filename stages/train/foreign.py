"""A model of the user's own is trained, souped and asked as ours are, or refused in one line.

It is an `nn.Module` called as torch_geometric's models: `model(x, edge_index)`, the nodes of a step
in hop order with the outputs first, edges source -> destination; the outputs' rows of what it
returns are taken. Optional attributes:

adj : "plain" (default), "plain+loops", "norm" or "mean", see `stages.pack.layers.Weights`; the last
    two are handed over as `edge_weight=`.
trim : True to be called with `num_sampled_nodes_per_hop=` and `num_sampled_edges_per_hop=` too, for
    `trim_to_layer`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stockpot.stages.errors import BadInput
from stockpot.stages.pack.layers import ADJ
from stockpot.stages.step import Adj

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Foreign", "edges_of"]


def edges_of(csr: Tensor) -> Tensor:
    """i8[2, nnz], source and destination of every entry, destinations ascending."""
    counts = csr.crow_indices().diff()
    target = torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts)
    return torch.stack([csr.col_indices().long(), target])


class Foreign(nn.Module):
    """The user's module behind the interface of `stockpot.stages.train.model.Model`.

    Random numbers it draws while training come from torch's default generator, seeded anew from
    `generator` for every step: a resumed training draws the same.
    """

    shares = coded = False  # it is called with edges, and with feature rows
    transposes = "none"  # its operators find their own gradients

    def __init__(self, module: Any, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.name = str(config["model"])
        if not isinstance(module, nn.Module):
            raise BadInput(
                f"train.model: {self.name!r}: expected a torch.nn.Module, found "
                f"{type(module).__name__}",
                fix="return the model from the factory",
            )
        parameters = list(module.parameters())
        if not any(p.requires_grad for p in parameters) or any(
            isinstance(p, nn.parameter.UninitializedParameter) for p in parameters
        ):
            raise BadInput(
                f"train.model: {self.name!r}: expected a model with weights of known shape, found "
                f"none or lazy ones",
                fix="give every layer its sizes: config has num_features, hidden, num_classes",
            )
        self.adj = str(getattr(module, "adj", "plain"))
        if self.adj not in ADJ:
            raise BadInput(
                f"train.model: {self.name!r}: adj: expected {' | '.join(ADJ)}, found {self.adj}",
                fix='set adj = "plain" on the model',
            )
        self.trim = bool(getattr(module, "trim", False))
        self.generator: torch.Generator | None = None
        self.module = module

    def forward(self, x: Tensor, adjs: Sequence[Adj] | Adj) -> Tensor:
        """Logits of the rows of the last matrix; see `stockpot.stages.train.model.Model.forward`.

        Raises
        ------
        BadInput
            The module returned something else than logits of at least these rows.
        """
        layers = [adjs] if isinstance(adjs, Adj) else list(adjs)
        first, rows = layers[0].csr, layers[-1].csr.shape[0]
        options: dict[str, Any] = {}
        if self.adj in ("norm", "mean"):
            options["edge_weight"] = first.values()
        if self.trim and not isinstance(adjs, Adj):
            ends = [adj.csr.shape[0] for adj in reversed(layers)]
            edges = first.crow_indices()[torch.tensor(ends, device=first.device)].tolist()
            options["num_sampled_nodes_per_hop"] = [
                b - a for a, b in pairwise([0, *ends, first.shape[1]])
            ]
            options["num_sampled_edges_per_hop"] = [b - a for a, b in pairwise([0, *edges])]
        out = self._called(x, edges_of(first), options)
        classes = int(self.config["num_classes"])
        if (
            not isinstance(out, Tensor)
            or out.dim() != 2
            or out.shape[0] < rows
            or out.shape[1] != classes
        ):
            found = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise BadInput(
                f"train.model: {self.name!r}: expected logits of shape (at least {rows} nodes, "
                f"{classes} classes), "
                f"found {found}",
                fix="return one row a node and num_classes columns",
            )
        return out[:rows]

    def _called(self, x: Tensor, edge_index: Tensor, options: Mapping[str, Any]) -> Any:
        if not self.training or self.generator is None:
            return self.module(x, edge_index, **options)
        seed = torch.randint(
            1 << 62, (1,), generator=self.generator, device=self.generator.device
        ).item()
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(int(seed))
            return self.module(x, edge_index, **options)
