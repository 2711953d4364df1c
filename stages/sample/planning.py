"""What sample takes from a recipe: a node for each split, and the size of its records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stockpot.stages.guess import Guess, Known
from stockpot.stages.influence.planning import record_inputs, splits
from stockpot.stages.node import node
from stockpot.stages.sample.limits import METHODS
from stockpot.stages.sample.sampling_params import Params
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["batches.method"] not in METHODS:
        return
    parts = {"partition": "partition"} if values["batches.seeds"] == "community" else {}
    for split in splits(values):
        yield node(f"sample:{split}", {**record_inputs(values, split), **parts}, split=split)


def reach(params: Params, nodes: int, nnz: int) -> tuple[int, int]:
    """Most nodes and edges of a record, from counts."""
    rows, edges, degree = min(params.outputs, nodes), 0, nnz / max(1, nodes)
    for k in params.fanouts:
        found = math.ceil(rows * (degree if k < 0 else k))
        edges += min(found, nnz)
        rows = min(rows + found, nodes)
    return rows, edges


def _guess(known: Known) -> Guess | None:
    params, graph, split = known.params, known.facts["graph"], known.values["split"]
    if not isinstance(params, Params):
        return None
    nodes = graph["num_nodes"]
    outputs = int(known.facts["split"].get(params.source, nodes))
    records = params.rounds * -(-outputs // params.outputs)
    rows, edges = reach(params, nodes, graph["nnz"])
    asked = {
        name: getattr(params, name)
        for name in ("method", "importance_sampling", "layer_dependency", "kappa", "seed")
    }
    return Guess(
        ({"rounds": params.rounds} if params.rounds > 1 else {})
        | {
            "split": split,
            "method": params.method,
            "sampling": {**asked, "fanouts": list(params.fanouts), "sequential": False},
            "records": records,
            "outputs": outputs,
            "rows": records * rows,
            "max_rows": rows,
            "edges": records * edges,
            "max_edges": edges,
            "replication": records * rows / max(1, outputs * params.rounds),
            "captured": None,
            "num_nodes": nodes,
        },
        {"sampling"},
    )


PLANNING = Planning(_nodes, guess=_guess)
