"""Describes `pack`: the records of one split as Arrow files whose shards depend on counts only,
never on workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.hag.planning import Sharing, sharing_of
from stockpot.stages.pack.layout import gathers, reason
from stockpot.stages.pack.planning import PLANNING
from stockpot.stages.pack.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["STAGE", "Params"]

BLOCKS = 64
SHARD_BYTES = 64 << 20


@dataclass(frozen=True)
class Params:
    """`split` of the outputs; `blocks`, most units of ownership (K); `shard_bytes`, estimated size
    of a file.

    `gather`: records hold no codes; they are read by node from the artifact of codes.
    `sharing`: how the shared partial sums of records are searched.
    """

    split: str
    blocks: int = BLOCKS
    shard_bytes: int = SHARD_BYTES
    gather: bool = added(off=False)
    sharing: Sharing = added(Sharing())  # noqa: RUF009 - a field, of a frozen default


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    layout = str(recipe["features.layout"])
    gather = gathers(layout, facts["graph"], facts["records"], facts["codes"])
    return Params(str(recipe["split"]), gather=gather, sharing=sharing_of(facts.get("hag")))


def _row_bytes(params: Params, graph: Facts, records: Facts, codes: Facts) -> float:
    """Estimated bytes of one row of a record: its code, its ids and a share of the edges; from
    facts only.
    """
    nodes = max(1, int(graph["num_nodes"]))
    code = codes["row_bytes"] if codes["row_bytes"] is not None else codes["code_bytes"] / nodes + 4
    if (tier := codes.get("tier")) is not None:
        code += (
            tier["row_bytes"] + 4
        )  # as if of every row: those that have them stand in more records than others
    code = 0 if params.gather else code
    if records.get("edgeless"):
        return float(code) + 24
    if "sampling" in records:
        layers = len(records["sampling"]["fanouts"])
        return (
            float(code)
            + 24
            + 4 * layers
            + 12 * int(records["edges"]) / max(1, int(records["rows"]))
        )
    per_edge = 4 * (1 + bool(graph["directed"]) + bool(graph["weighted"]))
    return float(code) + 24 + per_edge * int(graph["nnz"]) / nodes


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    n_ptr = inputs["records"].array("n_ptr")
    rows = max(
        1,
        int(
            params.shard_bytes
            / _row_bytes(params, *(inputs[role].facts for role in ("graph", "records", "codes")))
        ),
    )
    shards: list[Shard] = []
    start, records = 0, int(n_ptr.size) - 1
    for r in range(records):
        if r + 1 == records or n_ptr[r + 2] - n_ptr[start] > rows:
            shards.append(Shard(f"shard-{len(shards):05d}", start, r + 1))
            start = r + 1
    return shards


def _rounds(inputs: Inputs) -> dict[str, int]:
    """Number of rounds, where there are several: record k of round r is record r * records / rounds
    + k.
    """
    rounds = int(inputs["records"].facts.get("rounds", 1))
    return {"rounds": rounds} if rounds > 1 else {}


def _sampling(inputs: Inputs) -> dict[str, Any]:
    """How the records' edges were sampled, where they were."""
    facts = inputs["records"].facts
    return {"sampling": dict(facts["sampling"])} if "sampling" in facts else {}


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.codec.format import Codec
    from stockpot.stages.hag.hag_choice import Shared
    from stockpot.stages.pack.schema import EDGELESS, FORMAT
    from stockpot.stages.pack.shard import Builder, write_shard

    builder = Builder(inputs, params.blocks, gather=params.gather)
    graph, codes = inputs["graph"].facts, inputs["codes"].facts
    codec, rounds = Codec.from_reader(inputs["codes"]), _rounds(inputs)
    gather = {"gather": True} if params.gather else {}
    tiers = {"tiers": True} if codec.further is not None else {}
    sampling = _sampling(inputs)
    meta = {
        "format": FORMAT,
        "requires": [
            f"codec:{codec.family}",
            *rounds,
            *gather,
            *tiers,
            *(["sampled"] if sampling else []),
            *([EDGELESS] if builder.edgeless else []),
        ],
        "form": "layers" if builder.layered else "nodes",
        "task": "multiclass",
        "directed": bool(graph["directed"]),
        "weighted": bool(graph["weighted"]),
        "K": builder.blocks,
        "codec": codes["description"],
        "num_nodes": int(graph["num_nodes"]),
        "num_classes": int(graph["num_classes"]),
        "num_features": int(codes["num_features"]),
        "split": params.split,
        "shard": shard.name,
        "first_record": shard.start,
        "records": int(inputs["records"].facts["records"]),
        "inputs": {
            role: inputs[role].digest
            for role in ("graph", "partition", "records", "codes")
            if role in inputs
        },
        **rounds,
        **gather,
        **sampling,
        **(
            {"hag": {"loops": params.sharing.loops, "least": params.sharing.least}}
            if params.sharing.on
            else {}
        ),
    }
    records, shared = [], Shared()
    for r in range(shard.start, shard.stop):
        record = builder.build(r)
        records.append(
            shared.add(record, params.sharing, writer.threads) if params.sharing.on else record
        )
        writer.progress(r + 1 - shard.start, shard.stop - shard.start, "records")
    paths = writer.path(f"{shard.name}.arrow"), writer.path(f"{shard.name}.index.arrow")
    facts = write_shard(*paths, meta, records, codec.tables_to_bytes())
    return {
        **facts,
        "dropped_nodes": builder.dropped,
        "K": builder.blocks,
        **({"exposed_rows": builder.coded} if tiers else {}),
        **({"hag": shared.facts} if params.sharing.on else {}),
    }


def _finish(
    params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    graph, codes = inputs["graph"].facts, inputs["codes"].facts
    layout = reason(params.gather, graph, inputs["records"].facts, codes)
    writer.note("layout", layout)
    facts = [shards[name].facts for name in sorted(shards)]
    total = {
        name: sum(int(f[name]) for f in facts)
        for name in ("records", "outputs", "nodes", "edges", "bytes", "dropped_nodes")
    }
    exposed = sum(int(f.get("exposed_rows", 0)) for f in facts)
    gather_bytes = _gather_bytes(total["nodes"], exposed, codes)
    return {
        "split": params.split,
        "records": total["records"],
        "rows": total["nodes"],
        "edges": total["edges"],
        "outputs": total["outputs"],
        "replication": total["nodes"] / max(1, total["outputs"]),
        "dropped_nodes": total["dropped_nodes"],
        "bytes": total["bytes"],
        "num_classes": int(graph["num_classes"]),
        "num_features": int(codes["num_features"]),
        "max_rows": max(int(f["max_rows"]) for f in facts),
        "max_edges": max(int(f["max_edges"]) for f in facts),
        "codec": codes["codec"],
        "K": int(facts[0]["K"]),
        "directed": bool(graph["directed"]),
        "weighted": bool(graph["weighted"]),
        "hops": max(int(f["hops"]) for f in facts),
        "task": "multiclass",
        "shards": len(facts),
        **({"propagated": codes["propagated"]} if "propagated" in codes else {}),
        **_rounds(inputs),
        **_sampling(inputs),
        **({"edgeless": True} if inputs["records"].facts.get("edgeless") else {}),
        **({"exposed_rows": exposed} if codes.get("tier") else {}),
        **({"layout": layout, "gather_bytes": gather_bytes} if params.gather else {}),
        **(
            {"hag": {name: sum(f["hag"][name] for f in facts) for name in facts[0]["hag"]}}
            if params.sharing.on
            else {}
        ),
    }


def _gather_bytes(rows: int, exposed: int, codes: Facts) -> int:
    """Bytes of codes an epoch gathers, of `rows` rows of records of which `exposed` have further
    stages.
    """
    if (tier := codes.get("tier")) is not None:
        return rows * int(codes["row_bytes"]) + exposed * (int(tier["row_bytes"]) + 4)
    return rows * int(codes["code_bytes"]) // max(1, int(codes["num_nodes"]))


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    graph, records = facts["graph"], facts["records"]
    row = _row_bytes(params, graph, records, facts["codes"])
    written = int(int(records["rows"]) * row)
    # A shard's records are held until its counts are known; one record may be larger than a shard
    # and has its subgraph twice while it is turned. Beside them 4 bytes a node of the graph for
    # local ids.
    largest = written // max(1, int(records["records"]))
    if params.sharing.on:
        largest *= 8  # the search holds about 80 bytes an entry of a record
    held = min(written, params.shard_bytes + 2 * largest)
    nodes, nnz = int(graph["num_nodes"]), int(graph["nnz"])
    peak = 4 * nodes + held + 2 * largest + (64 << 20)
    note = reason(params.gather, graph, records, facts["codes"])
    if params.sharing.on:
        gain = (
            f"where they are predicted to gain {params.sharing.least:g} x"
            if params.sharing.least
            else "always"
        )
        note += f"; partial sums are shared in records {gain}"
    edges = 0 if records.get("edgeless") else 4 * nnz
    return Cost(16 * nodes + edges + written, written, peak, note=note)


STAGE = Stage(
    name="pack",
    version=1,
    exact=True,
    params=Params,
    roles=("graph", "partition", "records", "codes"),
    reads=("features.layout",),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
