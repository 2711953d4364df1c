"""What calibrate takes from a recipe: a node where `train.precision` is to be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["train.precision"] == "auto":
        yield node("calibrate", {})


def _guess(known: Known) -> Guess | None:
    # No error follows from it, so nothing that it leads to has to wait for the measurement.
    return Guess({"precision": "fp32"}, {"precision"})


PLANNING = Planning(_nodes, guess=_guess)
