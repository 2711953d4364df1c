"""What judge takes from a recipe: a node where the codec is to be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.codec.feature_columns import propagated
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["features.codec"] == "auto":
        yield node("judge", {"graph": "ingest", **propagated(made), "split": "split"})


def _guess(known: Known) -> Guess | None:
    return Guess({"codec": known.param("exact", "fp32"), "row_passes": known.param("rows", 0)})


PLANNING = Planning(_nodes, guess=_guess, optional=True)
