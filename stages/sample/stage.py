"""Sampled batches as a stage: seeds drawn anew for each round, and the nodes that sampling reaches
from them.

The edges are not stored: they are a function of the sampling's facts and the outputs, and `pack`
draws them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.influence.grouping import write_records
from stockpot.stages.influence.mix import balanced
from stockpot.stages.influence.walk_inputs import outputs_of
from stockpot.stages.kernels.threads import by_workers
from stockpot.stages.sample.planning import PLANNING, reach
from stockpot.stages.sample.reporting import REPORTING
from stockpot.stages.sample.sampling_params import READS, Params, resolve
from stockpot.stages.sample.seeds import dealt
from stockpot.stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.sample.batch import Sampling
    from stockpot.stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

SHARDS = 64  # most shards
THREADS = 4  # most threads of a task: each has up to 13 bytes a node of its own
CACHES = (0.05, 0.1, 0.2)  # of all nodes, for which misses are counted


def _sampling(params: Params) -> Sampling:
    from stockpot.stages.sample.batch import Sampling

    return Sampling(
        params.method,
        params.fanouts,
        params.importance_sampling,
        params.layer_dependency,
        params.kappa,
        params.seed,
    )


def members_of(
    count: int, outputs: int, rounds: int, part: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the outputs, record by record, and where each begins: new records in every
    round.

    Parameters
    ----------
    count : outputs of the split. outputs : most in a record. part : of
        `stockpot.stages.sample.seeds.dealt`.
    """
    records = balanced(count, outputs)[0]
    found = [dealt(count, records, seed, part) for seed in range(rounds)]
    sizes = np.concatenate([np.diff(ptr) for _, ptr in found])
    return np.concatenate([members for members, _ in found]), np.concatenate(
        [[0], np.cumsum(sizes)]
    ).astype(np.int64)


def _members(
    params: Params, inputs: Inputs, ids: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`members_of` the outputs `ids`."""
    part = (
        np.asarray(inputs["partition"].array("part"))[ids] if params.seeds == "community" else None
    )
    return members_of(len(ids), params.outputs, params.rounds, part)


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """Runs of records of equal number."""
    records = params.rounds * balanced(len(outputs_of(params, inputs)), params.outputs)[0]
    span = -(-records // SHARDS)
    starts = range(0, records, span)
    return [Shard(f"{i:05d}", at, min(at + span, records)) for i, at in enumerate(starts)]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Nodes of each record of the span, ascending; its nodes by hop and its edges by layer."""
    from stockpot.stages.sample.batch import Sampler
    from stockpot.stages.sample.sampler_inputs import graph_of

    graph, how, ids = graph_of(inputs["graph"]), _sampling(params), outputs_of(params, inputs)
    members, ptr = _members(params, inputs, ids)
    total = shard.stop - shard.start
    n_id: list[NDArray[np.int32]] = [ids[:0]] * total
    hops = np.zeros((total, len(how.fanouts) + 1), np.int64)
    edges = np.zeros((total, len(how.fanouts)), np.int64)

    def work(worker: int, workers: int) -> None:
        sampler = Sampler(graph, how)
        for at in range(worker, total, workers):
            record = shard.start + at
            found = sampler.batch(record, ids[members[ptr[record] : ptr[record + 1]]])
            n_id[at], hops[at] = np.sort(found.n_id), found.num_sampled_nodes
            edges[at] = [layer.indices.size for layer in found.layers]
            if worker == 0:
                writer.progress(at + 1, total, "records")

    by_workers(work, min(writer.threads, THREADS, total))
    writer.array(f"part-{shard.name}-n_id", np.concatenate(n_id))
    writer.array(f"part-{shard.name}-hops", hops)
    writer.array(f"part-{shard.name}-edges", edges)
    return {"records": total}


def finish(
    params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    """Lay the records one after the other, and count what they share."""
    from stockpot.stages.sample.reuse import lru_misses, overlap
    from stockpot.stages.sample.sampler_inputs import facts_of

    ids = outputs_of(params, inputs)
    members, ptr = _members(params, inputs, ids)
    n_id, hops, edges = (
        np.concatenate([outputs[shard].array(f"part-{shard}-{name}") for shard in sorted(outputs)])
        for name in ("n_id", "hops", "edges")
    )
    n_ptr = np.concatenate([[0], np.cumsum(hops.sum(axis=1))]).astype(np.int64)
    how, nodes = _sampling(params), int(inputs["graph"].facts["num_nodes"])
    stored = edges[:, -1:] if how.one_csr(weighted=inputs["graph"].has("weight")) else edges
    shared = overlap(n_id, n_ptr, nodes)
    facts = {
        "split": params.split,
        "method": params.method,
        "sampling": facts_of(how),
        **write_records(writer, ids, members, ptr, n_id, n_ptr),
        "edges": int(stored.sum()),
        "max_edges": int(stored.sum(axis=1).max()),
        "captured": None,
        "num_nodes": nodes,
        "nodes_by_layer": [round(float(mean), 3) for mean in np.cumsum(hops, axis=1).mean(axis=0)],
        "edges_by_layer": [round(float(mean), 3) for mean in edges.mean(axis=0)],
        "overlap": None if shared is None else round(shared, 6),
        "lru_misses": {
            str(share): round(lru_misses(n_id, n_ptr, nodes, int(share * nodes)), 6)
            for share in CACHES
        },
    }
    if params.seeds != "random":
        facts["seeds"] = params.seeds
    return facts if params.rounds == 1 else {**facts, "rounds": params.rounds}


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a node costs 8 read and 13 a thread, an edge 4 (8 weighted); a batch's sampled edges
    48 each while it is made, and with importances 4 an edge of all its rows; a row 4 written.
    """
    nodes, nnz = int(facts["graph"]["num_nodes"]), int(facts["graph"]["nnz"])
    split = facts.get("split", {})
    count = int(split[params.source]) if params.source in ("train", "valid", "test") else nodes
    graph = 8 * nodes + (8 if facts["graph"].get("weighted") else 4) * nnz
    records = params.rounds * -(-count // params.outputs)
    rows, edges = reach(params, nodes, nnz)
    written = params.rounds * count * 12 + records * rows * 4
    batch = 48 * edges + (4 * nnz + 16 * nodes if params.importance_sampling else 0)
    compiling = 96 << 20  # numba, the first time on a machine
    return Cost(
        read=graph + 4 * count + (4 * nodes if params.seeds == "community" else 0),
        written=written,
        peak=compiling + graph + THREADS * (13 * nodes + batch) + 3 * written + 16 * nodes,
    )


STAGE: Stage[Params] = Stage(
    name="sample",
    version=1,
    exact=True,
    params=Params,
    roles=("graph", "split", "nodes", "partition"),
    reads=READS,
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
