"""Partition as a stage: one task, recorded, because METIS may differ by machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

METHODS = ("auto", "metis")
LATER = ("kaminpar", "stream")

_NODES_PER_PART = 230
_MULTIPLE = 64  # parts come in whole blocks
_SEED = 0


@dataclass(frozen=True)
class Params:
    """Resolved parameters: metis, the number of parts, and the seed."""

    method: str
    parts: int
    seed: int


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values; "auto" parts hold about 230 nodes and come in multiples of 64."""
    method, parts = values["partition.method"], values["partition.parts"]
    if method not in METHODS:
        what = "is not available in this version" if method in LATER else "is not known"
        raise BadInput(f"partition.method = {method!r} {what}; expected one of {', '.join(METHODS)}")
    if parts == "auto":
        nodes = int(facts["graph"]["num_nodes"])
        parts = min(max(1, round(nodes / _NODES_PER_PART / _MULTIPLE)) * _MULTIPLE, nodes)
    elif parts < 1:
        raise BadInput(f"partition.parts: expected at least 1, found {parts}")
    return Params(method="metis", parts=int(parts), seed=_SEED)


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """One shard: METIS sees the whole graph."""
    del params
    return [Shard("all", 0, int(inputs["graph"].facts["num_nodes"]))]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Partition the graph, directions and weights dropped."""
    del shard
    from stages.partition.cut import balance, edge_cut, symmetric
    from stages.partition.metis import metis

    graph = inputs["graph"]
    indptr, indices = np.asarray(graph.array("indptr")), np.asarray(graph.array("indices"))
    if graph.facts["directed"]:
        indptr, indices = symmetric(indptr, indices)
    writer.progress(0, 1, "METIS")
    part = metis(indptr, indices, params.parts, seed=params.seed, folder=writer.scratch())
    writer.array("part", part)
    writer.progress(1, 1, "METIS")
    return {"edge_cut": edge_cut(indptr, indices, part), "balance": balance(part, params.parts)}


def finish(params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    """State what the partition is worth."""
    del writer
    quality = outputs["all"].facts
    return {
        "method": params.method,
        "parts": params.parts,
        "num_nodes": int(inputs["graph"].facts["num_nodes"]),
        "edge_cut": round(float(quality["edge_cut"]), 6),
        "balance": round(float(quality["balance"]), 6),
    }


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: METIS and its copies take about 80 a node and 90 an edge, its process 48 MiB; 4 a node are written."""
    del params
    nodes, edges = int(facts["graph"]["num_nodes"]), int(facts["graph"]["nnz"])
    if facts["graph"]["directed"]:
        edges *= 2
    return Cost(read=8 * nodes + 4 * edges, written=4 * nodes, peak=(48 << 20) + 80 * nodes + 90 * edges)


STAGE: Stage[Params] = Stage(
    name="partition",
    version=1,
    exact=False,
    params=Params,
    roles=("graph",),
    reads=("partition.method", "partition.parts"),
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
)
