"""Partition as a stage: one task, recorded: METIS may differ by machine, KaMinPar on several
threads by run.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.partition.planning import PLANNING
from stockpot.stages.partition.reporting import REPORTING
from stockpot.stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]


_KAMINPAR_FROM = 1_000_000
"""Entries of A + A^T from which `auto` is KaMinPar: faster than METIS on one thread, in a third of
its memory."""
_STREAM_FROM_BYTES = 64 << 30
"""Projected peak of KaMinPar above which `auto` is stream: two billion entries."""
_BASE_BYTES = 48 << 20  # the child's interpreter and libraries
_STREAM_BYTES = 96 << 20  # numba and fixed buffers
_NODE_BYTES = {"metis": 80, "kaminpar": 80}
_ENTRY_BYTES = {"metis": 120, "kaminpar": 32}
_NODES_PER_PART = 230
_MULTIPLE = 64  # parts come in whole blocks
_SEED = 0


@dataclass(frozen=True)
class Params:
    """Resolved parameters: metis, kaminpar or stream, the number of parts, and the seed."""

    method: str
    parts: int
    seed: int


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values; "auto" parts hold about 230 nodes and come in multiples of 64.

    "auto" method follows from counts alone, never from the machine: METIS below a million entries,
    from there KaMinPar as far as it is projected to need 64 GiB, then stream.
    """
    method, parts = values["partition.method"], values["partition.parts"]
    if parts == "auto":
        nodes = int(facts["graph"]["num_nodes"])
        parts = min(max(1, round(nodes / _NODES_PER_PART / _MULTIPLE)) * _MULTIPLE, nodes)
    if method == "auto":
        method = "kaminpar" if _entries(facts["graph"]) >= _KAMINPAR_FROM else "metis"
        if _peak("kaminpar", facts["graph"]) > _STREAM_FROM_BYTES:
            method = "stream"
    if method == "kaminpar" and importlib.util.find_spec("kaminpar") is None:
        raise BadInput(
            "partition.method = 'kaminpar': the package kaminpar is not installed",
            fix="pip install kaminpar, or --set partition.method=metis",
        )
    return Params(method=method, parts=int(parts), seed=_SEED)


def _entries(graph: Facts) -> int:
    """Entries of A + A^T, at most."""
    return int(graph["nnz"]) * (2 if graph["directed"] else 1)


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Partition the graph, directions and weights dropped."""
    from stockpot.stages.partition.cut import balance

    part, cut = (_stream if params.method == "stream" else _solve)(params, inputs["graph"], writer)
    writer.array("part", part)
    return {
        "method": params.method,
        "parts": params.parts,
        "num_nodes": int(inputs["graph"].facts["num_nodes"]),
        "edge_cut": round(float(cut), 6),
        "balance": round(float(balance(part, params.parts)), 6),
    }


def _solve(params: Params, graph: Reader, writer: Writer) -> tuple[NDArray[np.int32], float]:
    """Part of each node by a library that holds the graph, and the share of edges cut."""
    from stockpot.stages.partition.cut import edge_cut, symmetric
    from stockpot.stages.partition.solver import solve

    indptr, indices = np.asarray(graph.array("indptr")), np.asarray(graph.array("indices"))
    if graph.facts["directed"]:
        indptr, indices = symmetric(indptr, indices)
    writer.progress(0, 1, params.method)
    folder, threads = writer.scratch(), writer.threads
    part = solve(
        indptr,
        indices,
        params.parts,
        seed=params.seed,
        folder=folder,
        method=params.method,
        threads=threads,
    )
    writer.progress(1, 1, params.method)
    return part, edge_cut(indptr, indices, part)


def _stream(params: Params, graph: Reader, writer: Writer) -> tuple[NDArray[np.int32], float]:
    """The same from the stored arrays alone, a row at a time."""
    from stockpot.stages.partition.adjacency import adjacency
    from stockpot.stages.partition.flow import cut_share
    from stockpot.stages.partition.stream import stream

    names = (
        ("indptr", "indices", "t_indptr", "t_indices")
        if graph.facts["directed"]
        else ("indptr", "indices")
    )
    rows = adjacency(*(np.asarray(graph.array(name)) for name in names))

    def progress(done: int, total: int) -> None:
        writer.progress(done, total, "passes and regions")

    part = stream(
        rows,
        params.parts,
        entries=_entries(graph.facts),
        seed=params.seed,
        folder=writer.scratch(),
        progress=progress,
    )
    return part, cut_share(rows, part)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: 4 a node are written; see `_peak`. Directed graphs are read with their transpose."""
    graph = facts["graph"]
    nodes, entries = int(graph["num_nodes"]), _entries(graph)
    peak = _peak(params.method, graph)
    mend = "--set partition.method=stream" if _peak("stream", graph) < peak else ""
    return Cost(read=8 * nodes + 4 * entries, written=4 * nodes, peak=peak, mend=mend)


def _peak(method: str, graph: Facts) -> int:
    """Projected bytes of a method, its process included.

    METIS and KaMinPar hold the graph: so many bytes by node and entry. KaMinPar is projected at
    least as METIS on its largest graph: planned from counts that err on the large side, `auto` may
    still turn out METIS. Stream holds 24 a node, twice the longest row, and at any time one graph
    of bounded size for METIS, with 20 an entry of its own beside it.
    """
    nodes, entries = int(graph["num_nodes"]), _entries(graph)
    if method != "stream":
        peak = _BASE_BYTES + _NODE_BYTES[method] * nodes + _ENTRY_BYTES[method] * entries
        if method == "kaminpar" and entries >= _KAMINPAR_FROM:
            peak = max(
                peak,
                _BASE_BYTES + _NODE_BYTES["metis"] * nodes + _ENTRY_BYTES["metis"] * _KAMINPAR_FROM,
            )
        return peak
    from stockpot.stages.partition.stream_plan import stream_plan

    longest = min(nodes, 2 * int(graph.get("max_degree", nodes)))
    _, most = stream_plan(entries)
    return (
        _BASE_BYTES + _STREAM_BYTES + 24 * nodes + 8 * longest + (_ENTRY_BYTES["metis"] + 20) * most
    )


STAGE: Stage[Params] = Stage(
    name="partition",
    version=1,
    exact=False,
    params=Params,
    roles=("graph",),
    reads=("partition.method", "partition.parts"),
    resolve=resolve,
    run=run,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
