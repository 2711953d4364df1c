"""What warmup takes from a recipe: a node where ingredients share their first epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.node import node
from stockpot.stages.stage import Planning
from stockpot.stages.train.planning import advised, guess, trained_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["train.warmup"] > 0:
        yield node("warmup", trained_on(made), advised(made))


PLANNING = Planning(_nodes, guess=guess)
