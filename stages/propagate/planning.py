"""What propagate takes from a recipe: a node where features are multiplied by the graph."""

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
    if values["features.propagate"] > 0:
        yield node("propagate", {"graph": "ingest"})


def _guess(known: Known) -> Guess | None:
    graph, hops = known.facts["graph"], known.param("hops", 1)
    nodes, columns = graph["num_nodes"], graph["num_features"]
    total = (hops + 1) * columns
    return Guess(
        {
            "features": "dense",
            "binary": False,
            "num_nodes": nodes,
            "num_features": total,
            "x_nnz": nodes * total,
            "hops": hops,
            "adj": known.param("adj", "mean"),
            "normalization": known.param("normalization", "none"),
            "self_loops": known.param("self_loops", False),
            "own_columns": columns,
            "columns": known.param("columns", columns),
        },
        {"features", "binary", "num_nodes", "num_features", "x_nnz", "hops", "own_columns"},
    )


PLANNING = Planning(_nodes, guess=_guess)
