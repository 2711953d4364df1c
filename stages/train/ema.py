"""Weights averaged over the steps of one training; the training itself never sees the average."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

__all__ = ["Ema"]


class Ema:
    """Exponential moving average of a model's parameters, from those it has now; buffers are the
    model's own.

    Averages within one run with early stopping: arXiv 2306.09121. O(P) a step, P more memory.

    Parameters
    ----------
    decay : share of the average that a step keeps, in (0, 1): it looks back over about 1 / (1 -
        decay) steps.
    state : an average to go on with.
    """

    def __init__(
        self, model: nn.Module, decay: float, state: Mapping[str, Tensor] | None = None
    ) -> None:
        self.decay = decay
        found = model.state_dict() if state is None else state
        self.state = {name: values.detach().clone() for name, values in found.items()}
        self._names = [
            name
            for name, p in model.named_parameters(remove_duplicate=False)
            if p.is_floating_point()
        ]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step."""
        now = model.state_dict()
        mine, theirs = [self.state[n] for n in self._names], [now[n] for n in self._names]
        torch._foreach_lerp_(mine, theirs, 1.0 - self.decay)

    @contextmanager
    def used_by(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged parameters inside the block and its own again after it."""
        own = {name: values.detach().clone() for name, values in model.state_dict().items()}
        averaged = set(self._names)
        self.state |= {name: values for name, values in own.items() if name not in averaged}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(own)
