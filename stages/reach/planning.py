"""What reach takes from a recipe: a node where `infer.top_k` is to be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.reach.set_size import MOST
from stockpot.stages.sizing.planning import METHODS
from stockpot.stages.stage import Planning
from stockpot.stages.train.planning import ingredients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["infer.top_k"] != "auto":
        return
    if (method := values["batches.method"]) not in METHODS:
        raise BadInput(
            f"infer.top_k: auto judges the sets of single outputs: expected batches.method "
            f"{' or '.join(METHODS)}, found {method}",
            fix="--set infer.top_k=0",
        )
    inputs = {
        "graph": "ingest",
        "split": "split",
        "partition": "partition",
        "codes": "quantize",
        "soup": "soup",
        **ingredients(values),
    }
    yield node("reach", inputs, {"sizing": "sizing"} if "sizing" in made else {})


def _guess(known: Known) -> Guess | None:
    return Guess({"top_k": min(MOST, int(known.facts["graph"]["num_nodes"]))})


PLANNING = Planning(_nodes, guess=_guess, optional=True)
