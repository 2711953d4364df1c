"""Accuracy and loss of a model over records: outputs without a label count in neither."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from stockpot.stages.exchange.cost_model import widths
from stockpot.stages.loader.options import Form, Source
from stockpot.stages.loader.steps_of import steps_of
from stockpot.stages.pack.layers import Weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from stockpot.stages.loader.options import Delivery, RankPart, Schedule
    from stockpot.stages.loader.steps import Steps
    from stockpot.stages.stage import Reader
    from stockpot.stages.step import Step
    from stockpot.stages.train.model import Network

__all__ = ["Score", "count", "evaluate", "open_steps", "score", "settings"]


@dataclass(frozen=True)
class Score:
    """Counts over labelled outputs; `loss_sum` is their summed cross-entropy."""

    correct: int = 0
    labelled: int = 0
    loss_sum: float = 0.0

    @property
    def accuracy(self) -> float:
        return self.correct / max(1, self.labelled)

    @property
    def loss(self) -> float:
        return self.loss_sum / max(1, self.labelled)

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: accuracy, ties by lower loss (one that is not a number loses)."""
        return self.accuracy, -self.loss if self.loss == self.loss else -float("inf")

    def __add__(self, other: Score) -> Score:
        return Score(
            self.correct + other.correct,
            self.labelled + other.labelled,
            self.loss_sum + other.loss_sum,
        )


def count(logits: Tensor, y: Tensor, loss_sum: float) -> Score:
    """Score of logits f4[n, classes] against labels i8[n], -1 where unlabelled: never predicted, so
    never correct.
    """
    return Score(int((logits.argmax(1) == y).sum()), int((y >= 0).sum()), loss_sum)


def score(logits: Tensor, y: Tensor) -> Score:
    """As `count`, with the summed cross-entropy of the labelled rows."""
    return count(
        logits, y, float(functional.cross_entropy(logits, y, ignore_index=-1, reduction="sum"))
    )


@torch.no_grad()
def evaluate(model: Network, steps: Iterable[Step]) -> Score:
    """Score of a model over the outputs of all steps, in eval mode; its mode is restored."""
    training = model.training
    model.eval()
    total = Score()
    for step in steps:
        total += score(model(step.x, step.adjs), step.y)
    model.train(training)
    return total


def open_steps(
    source: Reader | Source,
    model: Network,
    schedule: Schedule | None = None,
    delivery: Delivery | None = None,
    *,
    training: bool = False,
    member: RankPart | None = None,
) -> Steps:
    """Steps of a packed split as `model` reads them: its depth, matrix and normalisation.

    Parameters
    ----------
    source : the split, in an order; a reader of it, where no order artifact counts.
    training : with the transposes a backward pass reads.
    """
    from stockpot.stages.train.model import MODELS

    config = model.config
    form = Form(
        int(config["layers"]),
        Weights(model.adj, config["normalization"], config["mass"], config["self_loops"]),
        transposes=model.transposes if training else "none",
        # a model of one's own is called with feature rows
        coded=type(model) in MODELS.values() and model.coded,
        hag=model.shares,
    )
    if member is not None and member.exchange is not None:
        member = replace(member, crossing=4 * max(widths(config)[:1], default=0))
    source = source if isinstance(source, Source) else Source.from_reader(source)
    return steps_of(source, form, schedule, delivery, member)


@contextmanager
def settings(threads: int) -> Iterator[None]:
    """Use `threads` threads and no denormal numbers inside the block; the process is left as it was
    found.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # tiny moments of Adam would cost a hundred cycles each
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
