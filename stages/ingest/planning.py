"""What ingest takes from a recipe: sections `dataset` and `graph`, one node, and its facts from
counts.
"""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import SOURCE, node
from stockpot.stages.recipe_key import INSIDE, SEED, key
from stockpot.stages.stage import Planning
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


@dataclass(frozen=True)
class Split:
    train: float = key(
        0.5, "share of the labelled nodes; used only where the dataset brings no split", INSIDE
    )
    valid: float = key(0.25, "share of the labelled nodes; the rest is test", INSIDE)
    seed: int = key(0, "seed of the split", SEED)


@dataclass(frozen=True)
class Dataset:
    source: str = key(
        "wordnet",
        "wordnet | npz: | files: | ogb: | pyg: | synthetic: ...; enters keys by its content",
        mend="--set dataset.source=npz:PATH, or another source that stockpot recipe --defaults "
        "names",
    )
    split: Split = key(Split(), "used only where the dataset brings none")
    split_index: int = key(0, "which of several published splits", Range(0, 10**6))


@dataclass(frozen=True)
class Graph:
    undirected: bool = key(
        True, "add the reverse of every edge; false keeps directions (and their transpose)"
    )
    self_loops: bool = key(True, "every node also sees itself when values are normalised")
    normalization: Literal["sym", "rw", "none"] = key(
        "sym", "sym | rw | none; applied by the reader, never stored"
    )
    mass: Literal["auto", "none", "row"] = key(
        "auto",
        "none | row: correct rows for neighbours outside the record | auto: where records hold too "
        "few of them",
    )


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    yield node("ingest", {"source": SOURCE})


def _guess(known: Known) -> Guess | None:
    source = known.facts["source"]
    if "num_nodes" not in source:
        return None
    nodes, edges = source["num_nodes"], source["num_edges_stored"]
    undirected = bool(known.values["graph.undirected"])
    reduce = int(known.values["features.reduce"])
    kind, columns, nnz = source["features"], source["num_features"], source["x_nnz"]
    if reduce:
        kind, columns, nnz = "dense", reduce, nodes * reduce
    return Guess(
        {
            "num_nodes": nodes,
            "num_edges_stored": edges,
            "nnz": 2 * edges if undirected else edges,
            "self_loops_dropped": 0,
            "duplicates_merged": 0,
            "isolated_nodes": 0,
            "num_features": columns,
            "num_classes": source["num_classes"],
            "unlabelled": nodes - source.get("labelled", nodes),
            "published_splits": source["published_splits"],
            "splits": source["splits"],
            "directed": not undirected,
            "weighted": source.get("weighted", False),
            "features": kind,
            "binary": source["binary"] and not reduce,
            "x_nnz": nnz,
            "max_degree": min(nodes, edges),
        },
        {
            "num_nodes",
            "num_edges_stored",
            "num_features",
            "features",
            "published_splits",
        }.difference(source.get("estimated", ())),
    )


PLANNING = Planning(_nodes, {"dataset": Dataset, "graph": Graph}, _guess)
