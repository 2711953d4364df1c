"""What hops takes from a recipe: a node where `features.propagate` is to be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess, Known
from stockpot.stages.hops.hop_spending import MOST_HOPS
from stockpot.stages.node import node
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["features.propagate"] == "auto":
        if (model := values["train.model"]) in ROW_MODELS:
            raise BadInput(
                f"features.propagate: auto judges models that read edges, and train.model "
                f"{model!r} reads products alone: expected 1 hop or more, found auto",
                fix="--set features.propagate=3",
            )
        if (by := values["features.propagate_by"]) != "auto":
            raise BadInput(
                f"features.propagate: auto judges products by the matrix that the model reads: "
                f"expected features.propagate_by = auto, or a number of hops, found {by}",
                fix="--set features.propagate=2",
            )
        yield node("hops", {"graph": "ingest", "split": "split"})


def _guess(known: Known) -> Guess | None:
    return Guess({"hops": MOST_HOPS, "row_passes": known.param("rows", 0)})


PLANNING = Planning(_nodes, guess=_guess, optional=True)
