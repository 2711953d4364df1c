"""What pack takes from a recipe: a node for each split, and the bytes of its records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stockpot.stages.guess import LARGEST, Guess, Known
from stockpot.stages.node import node
from stockpot.stages.partition.blocks import num_blocks
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def outputs_of(made: Nodes) -> str:
    """The packed split that inference reads: its own, or the test split."""
    return "pack:infer" if "pack:infer" in made else "pack:test"


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    shared = {"hag": "hag"} if "hag" in made else {}
    for records in [n for n in made.values() if n.stage in ("influence", "sample")]:
        split = records.instance["split"]
        parts = {"partition": "partition"} if "partition" in made else {}
        inputs = {"graph": "ingest", **parts, "records": records.id, "codes": "quantize"}
        yield node(f"pack:{split}", inputs, shared, split=split)


def _guess(known: Known) -> Guess | None:
    graph, records, codes = known.facts["graph"], known.facts["records"], known.facts["codes"]
    rows, count = records["rows"], max(1, records["records"])
    degree = graph["nnz"] / max(1, graph["num_nodes"])
    edges = min(math.ceil(rows * degree), count * graph["nnz"])
    edgeless = {"edgeless": True} if records.get("edgeless") else {}
    edges = 0 if edgeless else edges
    sampling = {}
    if "sampling" in records:
        edges, sampling = records["edges"], {"sampling": records["sampling"]}
    code_bytes = codes["code_bytes"] / max(1, graph["num_nodes"]) * rows
    gathered = {"gather_bytes": math.ceil(code_bytes)} if known.param("gather", False) else {}
    code_bytes = 0 if gathered else code_bytes
    edge_bytes = 12 if sampling else 4 * (1 + bool(graph["directed"]) + bool(graph["weighted"]))
    return Guess(
        {
            "split": known.values["split"],
            "records": count,
            "rows": rows,
            "edges": edges,
            "outputs": records["outputs"] * records.get("rounds", 1),
            "replication": records["replication"],
            "dropped_nodes": 0,
            "bytes": math.ceil(code_bytes + 16 * rows + edge_bytes * edges),
            "num_classes": graph["num_classes"],
            "num_features": codes["num_features"],
            "max_rows": min(graph["num_nodes"], math.ceil(LARGEST * rows / count)),
            "max_edges": records["max_edges"]
            if sampling
            else min(graph["nnz"], math.ceil(LARGEST * edges / count)),
            "hops": 1 if edgeless else 16,
            "shards": 1,
            "codec": codes["codec"],
            "K": num_blocks(
                int(graph["num_nodes"] if edgeless else known.facts["partition"]["parts"])
            ),
            "directed": graph["directed"],
            "weighted": graph["weighted"],
            "task": "multiclass",
            **({"propagated": codes["propagated"]} if "propagated" in codes else {}),
            **gathered,
            **sampling,
            **edgeless,
            **known.rounds,
        },
        {"sampling", "propagated", "edgeless"},
    )


PLANNING = Planning(_nodes, guess=_guess)
