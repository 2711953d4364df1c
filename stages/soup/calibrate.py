"""Running statistics of batch norm belong to weights: a soup's are measured anew, never averaged
(arXiv 2211.08403).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from stockpot.stages.step import Step

__all__ = ["batch_norms", "recalibrate"]


def batch_norms(model: nn.Module) -> list[Any]:
    """Its batch norms that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def recalibrate(model: nn.Module, steps: Iterable[Step]) -> None:
    """Replace running statistics by their mean over `steps`; dropout is off, the model is left in
    eval mode.

    PyTorch's `update_bn` does the same for batches that are one tensor. One pass over `steps`.
    """
    norms = batch_norms(model)
    before = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for step in steps:
        model(step.x, step.adjs)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.eval()
