"""How propagated features are stored: columns of each hop in pieces; described without numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stockpot.stages.node import Nodes
    from stockpot.stages.stage import Facts

__all__ = ["features_of", "hop_name", "products_of", "propagated", "slab_starts"]


def slab_starts(columns: int, width: int) -> range:
    """First columns of the pieces of so many columns."""
    return range(0, columns, width)


def hop_name(hop: int, start: int) -> str:
    """Name of the array f4[N, columns] of a hop's columns from `start` on."""
    return f"hop{hop}-{start:05d}"


def propagated(made: Nodes) -> dict[str, str]:
    """The input of whoever reads features, beside the graph: their products where there are."""
    return {"propagated": "propagate"} if "propagate" in made else {}


def features_of(facts: Mapping[str, Facts]) -> Facts:
    """Facts of the features that are coded: of the propagated ones where there are, else of the
    graph.
    """
    return facts["propagated"] if "propagated" in facts else facts["graph"]


def products_of(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """What whoever reads the columns is told of them: how many are the graph's own, how often they
    were multiplied, by which matrix, and with which return to x; nothing where they are not.
    """
    if "propagated" not in facts:
        return {}
    names = ("hops", "adj", "normalization", "self_loops", "own_columns")
    found = facts["propagated"]
    back = {"alpha": found["alpha"]} if "alpha" in found else {}
    return {"propagated": {name: found[name] for name in names} | back}
