"""Partition as a stage: one task, recorded: METIS may differ by machine, KaMinPar on several threads by run."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

METHODS = ("auto", "metis", "kaminpar")
LATER = ("stream",)

_KAMINPAR_FROM = 1_000_000
"""Entries of A + A^T from which `auto` is KaMinPar: faster than METIS on one thread, in a third of its memory."""
_BASE_BYTES = 48 << 20  # the child's interpreter and libraries
_NODE_BYTES = {"metis": 80, "kaminpar": 80}
_ENTRY_BYTES = {"metis": 120, "kaminpar": 32}
_NODES_PER_PART = 230
_MULTIPLE = 64  # parts come in whole blocks
_SEED = 0


@dataclass(frozen=True)
class Params:
    """Resolved parameters: metis or kaminpar, the number of parts, and the seed."""

    method: str
    parts: int
    seed: int


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values; "auto" parts hold about 230 nodes and come in multiples of 64.

    "auto" method follows from counts alone, never from the machine: METIS below a million entries, from there KaMinPar.
    """
    method, parts = values["partition.method"], values["partition.parts"]
    if method not in METHODS:
        what = "is not available in this version" if method in LATER else "is not known"
        raise BadInput(f"partition.method = {method!r} {what}; expected one of {', '.join(METHODS)}")
    if parts == "auto":
        nodes = int(facts["graph"]["num_nodes"])
        parts = min(max(1, round(nodes / _NODES_PER_PART / _MULTIPLE)) * _MULTIPLE, nodes)
    elif parts < 1:
        raise BadInput(f"partition.parts: expected at least 1, found {parts}")
    if method == "auto":
        method = "kaminpar" if _entries(facts["graph"]) >= _KAMINPAR_FROM else "metis"
    if method == "kaminpar" and importlib.util.find_spec("kaminpar") is None:
        raise BadInput(
            "partition.method = 'kaminpar': the package kaminpar is not installed",
            fix="pip install kaminpar, or --set partition.method=metis",
        )
    return Params(method=method, parts=int(parts), seed=_SEED)


def _entries(graph: Facts) -> int:
    """Entries of A + A^T, at most."""
    return int(graph["nnz"]) * (2 if graph["directed"] else 1)


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """One shard: a partition is of the whole graph."""
    del params
    return [Shard("all", 0, int(inputs["graph"].facts["num_nodes"]))]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Partition the graph, directions and weights dropped."""
    del shard
    from stages.partition.cut import balance, edge_cut, symmetric
    from stages.partition.solver import solve

    graph = inputs["graph"]
    indptr, indices = np.asarray(graph.array("indptr")), np.asarray(graph.array("indices"))
    if graph.facts["directed"]:
        indptr, indices = symmetric(indptr, indices)
    writer.progress(0, 1, params.method)
    part = solve(
        indptr,
        indices,
        params.parts,
        seed=params.seed,
        folder=writer.scratch(),
        method=params.method,
        threads=writer.threads,
    )
    writer.array("part", part)
    writer.progress(1, 1, params.method)
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
    """Bytes: the library and the copies it is given by node and entry, its process 48 MiB; 4 a node are written."""
    nodes, entries = int(facts["graph"]["num_nodes"]), _entries(facts["graph"])
    return Cost(
        read=8 * nodes + 4 * entries,
        written=4 * nodes,
        peak=_BASE_BYTES + _NODE_BYTES[params.method] * nodes + _ENTRY_BYTES[params.method] * entries,
    )


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
