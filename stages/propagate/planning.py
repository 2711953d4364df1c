"""What propagate takes from a recipe: a node where features are multiplied by the graph."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING", "product_facts"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["features.propagate"] != 0:
        yield node("propagate", {"graph": "ingest"}, {"hops": "hops"} if "hops" in made else {})


def product_facts(params: Any, nodes: int, columns: int) -> dict[str, Any]:
    """Facts of features with their products, as of an ingested graph whose features are dense.

    Parameters
    ----------
    params : of the stage. nodes : of the graph. columns : of its own features.
    """
    total = (params.hops + 1) * columns
    alpha = {"alpha": params.alpha} if params.alpha else {}
    return {
        "features": "dense",
        "binary": False,
        "num_nodes": nodes,
        "num_features": total,
        "x_nnz": nodes * total,
        "own_columns": columns,
        **{name: value for name, value in asdict(params).items() if name != "alpha"},
        **alpha,  # where it is none, digests of artifacts of before it was there stay
    }


def _guess(known: Known) -> Guess | None:
    graph = known.facts["graph"]
    facts = product_facts(known.params, graph["num_nodes"], graph["num_features"])
    return Guess(facts, frozenset() if "hops" in known.facts else set(facts))


PLANNING = Planning(_nodes, guess=_guess, optional=True)
