"""Influence batches as a stage: PPR in spans of outputs, then one pass that groups them into records."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.influence.mix import balanced, mix_clusters
from stages.influence.nodes import read_nodes
from stages.influence.params import READS, Params, resolve
from stages.influence.scramble import permutation
from stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

SPAN = 16_384  # outputs in a shard
_CHUNK = 512  # outputs a thread takes at a time
_PAIRS = 16  # entries at other outputs kept for each output: more change the replication by less than 0.5 %
_THREADS = 4  # most threads of a task: each has up to 48 bytes a node of its own
_SAMPLE = 1024  # outputs whose captured PPR mass is measured
_SEED = 0


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """Spans of the sorted outputs; one shard without work where no PPR is needed."""
    count = len(_outputs(params, inputs))
    if params.method == "cluster":
        return [Shard("all", 0, count)]
    return [Shard(f"{i:05d}", at, min(at + SPAN, count)) for i, at in enumerate(range(0, count, SPAN))]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """PPR of one span: the largest entries of each output, and its largest entries at other outputs."""
    if params.method == "cluster":
        return {}
    from stages.influence.push import push_top, workspace

    graph, walk = _walk(params, inputs)
    outputs = _outputs(params, inputs)
    seeds = outputs[shard.start : shard.stop]
    position = np.full(len(graph[0]) - 1, -1, np.int32)
    position[outputs] = np.arange(len(outputs), dtype=np.int32)
    width = _PAIRS if params.method == "node" else 0
    top, top_value = np.empty((len(seeds), params.top_k), np.int32), np.empty((len(seeds), params.top_k), np.float32)
    pair, pair_value = np.empty((len(seeds), width), np.int32), np.empty((len(seeds), width), np.float32)
    starts = range(0, len(seeds), _CHUNK)

    def work(worker: int, workers: int) -> None:
        space = workspace(walk.threshold)
        for at in starts[worker::workers]:
            part = slice(at, at + _CHUNK)
            push_top(
                *graph,
                walk.spread,
                walk.settle,
                seeds[part],
                params.alpha,
                position,
                *space,
                top[part],
                top_value[part],
                pair[part],
                pair_value[part],
            )
            if worker == 0:
                writer.progress(min(at + _CHUNK, len(seeds)), len(seeds), "outputs")

    workers = max(1, min(writer.threads, _THREADS, len(starts)))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers), [workers] * workers))
    writer.array(f"part-{shard.name}-top", top)
    if width:
        held = pair >= 0
        writer.array(f"part-{shard.name}-top-value", top_value)
        writer.array(f"part-{shard.name}-pairs", held.sum(axis=1).astype(np.int32))
        writer.array(f"part-{shard.name}-pair", pair[held])
        writer.array(f"part-{shard.name}-pair-value", pair_value[held])
    return {"outputs": len(seeds)}


def finish(params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    """Group the outputs into records, unite their nodes and write them."""
    ids = _outputs(params, inputs)
    records, cap = balanced(len(ids), params.outputs)
    captured = None
    if params.method == "cluster":
        members, ptr, n_id, n_ptr = _parts(ids, np.asarray(inputs["partition"].array("part")), records, cap)
    else:
        from stages.influence.union import record_nodes

        graph, _ = _walk(params, inputs)
        num_nodes = len(graph[0]) - 1
        top = _joined(outputs, "top")
        if params.method == "random":
            listed = permutation(len(ids), _SEED)
            record = np.empty(len(ids), np.int32)
            record[listed] = np.arange(len(ids)) * records // len(ids)
        else:
            record = _mixed(params, outputs, top, ids, num_nodes)
        members, ptr = _grouped(record, records)
        n_id, n_ptr = record_nodes(ids, members, ptr, top, num_nodes)
        captured = _captured(params, inputs, ids, record, n_id, n_ptr)
    writer.array("outputs", ids[members])
    writer.array("out_ptr", ptr)
    writer.array("input_id", members)
    writer.array("n_id", n_id)
    writer.array("n_ptr", n_ptr)
    return {
        "split": params.split,
        "method": params.method,
        "records": len(ptr) - 1,
        "outputs": len(ids),
        "rows": len(n_id),
        "max_rows": int(np.diff(n_ptr).max()),
        "replication": round(len(n_id) / len(ids), 6),
        "captured": captured,
        "num_nodes": int(inputs["graph"].facts["num_nodes"]),
    }


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a node costs 8 read and 48 a thread + 44 held, an edge 4 (8 weighted), an output about 24 k + 400."""
    nodes, edges = int(facts["graph"]["num_nodes"]), int(facts["graph"]["nnz"])
    split = facts.get("split", {})
    count = int(split[params.source]) if params.source in ("train", "valid", "test") else nodes
    graph = 8 * nodes + (8 if facts["graph"].get("weighted") else 4) * edges
    rows = min(count * (params.top_k + 1), nodes * -(-count // params.outputs)) if params.top_k else nodes * 2
    written = count * 12 + rows * 4
    held = count * (params.top_k * 24 + _PAIRS * 24 + 64)
    compiling = 64 << 20  # numba, the first time on a machine
    peak = compiling + graph + nodes * (48 * _THREADS + 44) + held + 2 * written
    return Cost(read=graph + 4 * count, written=written, peak=peak)


def _outputs(params: Params, inputs: Inputs) -> NDArray[np.int32]:
    """Sorted unique ids of the outputs of this split."""
    num_nodes = int(inputs["graph"].facts["num_nodes"])
    if params.source == "all":
        return np.arange(num_nodes, dtype=np.int32)
    if params.source != "nodes":
        return np.asarray(inputs["split"].array(params.source))
    return read_nodes(inputs["nodes"].path("source"), num_nodes)


def _walk(params: Params, inputs: Inputs) -> tuple[tuple[NDArray[Any], NDArray[Any], NDArray[Any]], Any]:
    """CSR arrays (weights empty where all are 1) and the constants of the walk on them."""
    from stages.influence.walk import walk

    graph = inputs["graph"]
    indptr, indices = np.asarray(graph.array("indptr")), np.asarray(graph.array("indices"))
    weight = np.asarray(graph.array("weight")) if graph.has("weight") else None
    constants = walk(indptr, weight, self_loops=params.self_loops, alpha=params.alpha, eps=params.eps)
    if weight is None:
        weight = np.empty(0, np.float32)
        weight.flags.writeable = False  # one kernel for weighted and unweighted graphs: stored arrays are read-only
    return (indptr, indices, weight), constants


def _joined(outputs: Mapping[str, Reader], name: str) -> NDArray[Any]:
    return np.concatenate([outputs[shard].array(f"part-{shard}-{name}") for shard in sorted(outputs)])


def _mixed(
    params: Params, outputs: Mapping[str, Reader], top: NDArray[np.int32], ids: NDArray[np.int32], num_nodes: int
) -> NDArray[np.int32]:
    """Record of every output: influence clusters, mixed."""
    from stages.influence.merge import clusters
    from stages.influence.pairs import overlaps, shared

    records, cap = balanced(len(ids), params.outputs)
    ptr = np.concatenate([[0], np.cumsum(_joined(outputs, "pairs"))]).astype(np.int64)
    pairs = overlaps(ptr, _joined(outputs, "pair"), _joined(outputs, "pair-value"))
    links = shared(top, _joined(outputs, "top-value"), num_nodes)
    listed, starts = clusters(pairs, links, np.arange(len(ids), dtype=np.int32), -(-cap // params.mix))
    record = np.empty(len(ids), np.int32)
    record[listed] = mix_clusters(np.diff(starts), records, cap, _SEED)
    return record


def _grouped(record: NDArray[np.int32], records: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the outputs, record by record and rising inside each, and where each record starts."""
    members = np.argsort(record, kind="stable").astype(np.int64)
    return members, np.concatenate([[0], np.cumsum(np.bincount(record, minlength=records))]).astype(np.int64)


def _parts(
    ids: NDArray[np.int32], part: NDArray[np.int32], records: int, cap: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Cluster-GCN's batches: parts mixed like influence clusters, and all nodes of the parts of a record."""
    listed = np.argsort(part[ids], kind="stable")
    owner = part[ids][listed]
    sizes = np.bincount(owner)
    record = np.empty(len(ids), np.int32)
    record[listed] = mix_clusters(sizes[sizes > 0], records, cap, _SEED)
    members, ptr = _grouped(record, records)
    nodes = np.argsort(part, kind="stable").astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(np.bincount(part))])
    rows = []
    for r in range(records):
        used = np.unique(part[ids[members[ptr[r] : ptr[r + 1]]]])
        rows.append(np.sort(np.concatenate([nodes[ends[c] : ends[c + 1]] for c in used])))
    n_ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return members, ptr, np.concatenate(rows), n_ptr


def _captured(
    params: Params,
    inputs: Inputs,
    ids: NDArray[np.int32],
    record: NDArray[np.int32],
    n_id: NDArray[np.int32],
    n_ptr: NDArray[np.int64],
) -> float:
    """Mean share of an output's PPR mass inside its record, over a seeded sample of outputs."""
    from stages.influence.push import workspace
    from stages.influence.union import mass_inside

    graph, walk = _walk(params, inputs)
    sample = np.sort(permutation(len(ids), _SEED + 1)[:_SAMPLE])
    constants = (walk.spread, walk.settle, ids[sample], record[sample], params.alpha)
    shares = mass_inside(*graph, *constants, *workspace(walk.threshold), n_id, n_ptr)
    return round(float(shares.mean()), 6)


STAGE: Stage[Params] = Stage(
    name="influence",
    version=1,
    exact=True,
    params=Params,
    roles=("graph", "split", "partition", "nodes"),
    reads=READS,
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
)
