"""What codeloss takes from a recipe: a node where features may lose something."""

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
    if "codebook" in made or values["features.codec"] == "fp16":
        yield node(
            "codeloss",
            {"valid": "pack:valid", "soup": "soup", "graph": "ingest", **propagated(made)},
            {"codes": "quantize"},
        )


def _guess(known: Known) -> Guess | None:
    return Guess({"codec": known.param("codec", ""), "accuracy_drop": None})


PLANNING = Planning(_nodes, guess=_guess, optional=True)
