"""What influence takes from a recipe: section `batches`, a node for each split, and the size of its
records.
"""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.guess import LARGEST, Guess, Known
from stockpot.stages.influence.batch_params import ROWS, TOP_K
from stockpot.stages.node import NODES, SPLITS, node
from stockpot.stages.recipe_key import MANY, SHARE, Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


REPLICATION = 6.0
"""Rows for each output, as a guess has them."""
METHODS = ("node", "batch", "cluster", "random", ROWS)
"""Values of `batches.method` whose records this stage makes; it has two for parts of the
partition."""


@dataclass(frozen=True)
class Batches:
    method: Literal["node", "batch", "cluster", "random", "neighbor", "labor", "propagate"] = key(
        "node",
        "node: PageRank of every output | batch: of parts | cluster, random: baselines | neighbor, "
        "labor: sampled | propagate: rows without edges, for sgc, sign",
    )
    alpha: float = key(
        0.25, "probability that a walk goes home: larger stays nearer", Range(0.001, 1, below=True)
    )
    eps: float = key(
        2e-4,
        "PageRank mass per unit of degree left unpushed: smaller is more exact and slower",
        Range(1e-12, 1, below=True),
    )
    top_k: int | Literal["auto", "all"] = key(
        "auto",
        "nodes; most influential neighbours kept for every output | all | auto: what holds enough, "
        "as measured",
        MANY,
    )
    outputs: int | Auto = key(
        "auto",
        "most outputs in a record; auto: a few dozen records a split, fewer where these hold too "
        "little",
        Range(1, 2**31 - 1),
    )
    mix: int | Auto = key(
        "auto",
        "influence clusters mixed into one record of training or validation, more costs rows and "
        "gains accuracy; those of test nodes and inference are one each",
        MANY,
    )
    rounds: int = key(
        1,
        "sets of training batches, used in turn by epoch; each costs the bytes of one",
        Range(1, 10_000),
    )
    aux_ratio: float = key(
        3.0,
        "batch: nodes kept for a part, as a multiple of the mean size of a part",
        Range(0, 10**6, above=True),
    )
    aux_mass: float = key(
        0.0,
        "batch: > 0: instead, the fewest nodes that hold this share of a part's PageRank mass",
        SHARE,
    )
    orientation: Literal["transpose", "reference"] = key(
        "transpose",
        "batch: transpose: mass that reaches a node from the part | reference: the published "
        "code's D^-1 A",
    )
    fanouts: tuple[int, ...] = key(
        (10, 10, 10),
        "sampled: neighbours of a node, a layer each from the outputs; -1: all",
        Range(1, 10**6, also=((-1, "all"),)),
    )
    kappa: int | Literal["inf"] = key(
        1,
        "sampled: batches over which random numbers drift to new ones; 1: independent | inf: fixed "
        "neighbours",
        MANY,
    )
    importance_sampling: int = key(
        0,
        "labor: updates of the importances, fewer nodes each; -1: until it pays no more",
        Range(0, 1000, also=((-1, "as many as pay"),)),
    )
    layer_dependency: bool = key(
        default=False, about="sampled: all layers share their random numbers: fewer nodes"
    )
    seeds: Literal["random", "community"] = key(
        "random",
        "sampled: outputs of a record drawn evenly | community: neighbours in the partition, far "
        "fewer rows",
    )


def splits(values: Values) -> tuple[str, ...]:
    """Splits that records are made of; "infer" is what inference asks for, where that is not the
    test split.
    """
    top_k = values["infer.top_k"]
    larger = top_k == "auto" or top_k not in (0, values["batches.top_k"])
    own = values["infer.split"] != "test" or (larger and values["batches.method"] != ROWS)
    return (*SPLITS, "infer") if own else SPLITS


def record_inputs(values: Values, split: str) -> dict[str, str]:
    """Inputs of records that every method needs; the ids asked for where the user names a file of
    them.
    """
    ids = (
        {"nodes": NODES}
        if split == "infer" and values["infer.split"] not in ("test", "all")
        else {}
    )
    return {"graph": "ingest", "split": "split", **ids}


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if (method := values["batches.method"]) not in METHODS:
        return
    sized = {"sizing": "sizing"} if "sizing" in made else {}
    parts = {"partition": "partition"} if method in ("batch", "cluster") else {}
    for split in splits(values):
        judged = split == "infer" and values["infer.top_k"] == "auto"
        yield node(
            f"influence:{split}",
            {**record_inputs(values, split), **parts},
            {**sized, **({"reach": "reach"} if judged else {})},
            split=split,
        )


def _guess(known: Known) -> Guess | None:
    nodes, split = known.facts["graph"]["num_nodes"], known.values["split"]
    source = known.values["infer.split"] if split == "infer" else split
    outputs = int(known.facts["split"].get(source, nodes))
    records = max(1, math.ceil(outputs / max(1, known.param("outputs", 1024))))
    rows = min(
        math.ceil(outputs * min(REPLICATION, known.param("top_k", TOP_K) + 1)), records * nodes
    )
    if known.param("whole", False):
        rows = records * nodes
    if known.values["batches.method"] in ("batch", "cluster"):
        share = 24 if known.param("mass", 0.0) else 2 * max(1.0, known.param("ratio", 0.0))
        rows = max(rows, math.ceil(share * nodes))
    if (mix := known.param("mix", 0)) and known.values["batches.method"] == "batch":
        records = max(records, math.ceil(known.facts["partition"]["parts"] / mix))
    edgeless = known.values["batches.method"] == ROWS
    if edgeless:
        rows = outputs
    rounds = known.param("rounds", 1)
    rows, records = rounds * min(rows, records * nodes), rounds * records
    return Guess(
        ({"rounds": rounds} if rounds > 1 else {})
        | ({"edgeless": True} if edgeless else {})
        | {
            "split": split,
            "method": known.values["batches.method"],
            "records": records,
            "outputs": outputs,
            "rows": rows,
            "max_rows": min(nodes, math.ceil(LARGEST * rows / records)),
            "replication": rows / max(1, outputs * rounds),
            "captured": None,
            "num_nodes": nodes,
        },
        {"edgeless"},
    )


PLANNING = Planning(_nodes, {"batches": Batches}, _guess)
