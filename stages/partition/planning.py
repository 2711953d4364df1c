"""What partition takes from a recipe: section `partition`, and one node."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.recipe_key import Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


@dataclass(frozen=True)
class Partition:
    method: Literal["auto", "metis", "kaminpar", "stream"] = key(
        "auto",
        "auto | metis | kaminpar | stream (bounded memory); auto by edges: metis, from a million "
        "on kaminpar",
    )
    parts: int | Auto = key(
        "auto",
        "number of parts; auto from the number of nodes; ranks own whole blocks of them",
        Range(1, 10**7),
    )


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    """None where records have no edges: nothing is cut, and ranks own equal ranges of ids."""
    if values["batches.method"] != "propagate":
        yield node("partition", {"graph": "ingest"})


def _guess(known: Known) -> Guess | None:
    graph = known.facts["graph"]
    parts = known.param("parts", 64)
    sizes = {"parts": parts, "edge_cut": 0.5, "balance": 1.1, "num_nodes": graph["num_nodes"]}
    return Guess({**sizes, "method": known.param("method", "metis")})


PLANNING = Planning(_nodes, {"partition": Partition}, _guess)
