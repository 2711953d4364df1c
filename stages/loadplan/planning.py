"""What loadplan takes from a recipe: a node where `order.cache` asks for a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["order.cache"] == 0:
        return
    if (ranks := values["train.ranks"]) > 1:
        raise BadInput(
            f"order.cache: one process follows a load plan, found train.ranks = {ranks}",
            fix="--set order.cache=0",
        )
    yield node("loadplan", {"records": "pack:train", "order": "order", "graph": "ingest"})


def _guess(known: Known) -> Guess | None:
    packed, epochs = known.facts["records"], known.param("epochs", 1)
    rows, cache = packed["rows"] // packed.get("rounds", 1), known.param("cache", 0)
    return Guess(
        {
            "split": packed["split"],
            "order": known.facts["order"]["method"],
            "cache": cache,
            "cache_bytes": 4 * cache * packed["num_features"],
            "rounds": packed.get("rounds", 1),
            "epochs": epochs,
            "rows": [rows] * epochs,
            "read": [rows] * epochs,
        }
    )


PLANNING = Planning(_nodes, guess=_guess)
