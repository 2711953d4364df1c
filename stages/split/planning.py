"""What split takes from a recipe: one node, and how many nodes its parts will have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    yield node("split", {"graph": "ingest"})


def _guess(known: Known) -> Guess | None:
    graph = known.facts["graph"]
    counts = graph.get("splits")
    if counts is None:
        labelled = graph["num_nodes"] - graph["unlabelled"]
        train, valid = (
            float(known.values["dataset.split.train"]),
            float(known.values["dataset.split.valid"]),
        )
        shares = {"train": train, "valid": valid, "test": max(0.0, 1.0 - train - valid)}
        counts = {name: max(1, math.ceil(share * labelled)) for name, share in shares.items()}
    return Guess({**counts, "origin": "seeded", "num_nodes": graph["num_nodes"]})


PLANNING = Planning(_nodes, guess=_guess)
