"""What hops takes from a recipe: a node where `features.propagate` is to be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.guess import Guess, Known
from stockpot.stages.hops.hop_spending import MOST_HOPS
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["features.propagate"] == "auto":
        yield node("hops", {"graph": "ingest", "split": "split"})


def _guess(known: Known) -> Guess | None:
    return Guess({"hops": MOST_HOPS, "row_passes": known.param("rows", 0)})


PLANNING = Planning(_nodes, guess=_guess, optional=True)
