"""Influence batches as a stage: PPR in spans of outputs or parts, then one pass that groups them
into records.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.influence.batch_params import PARTED, READS, ROWS, Params, resolve
from stockpot.stages.influence.grouping import (
    at_random,
    by_influence,
    by_part,
    grouped,
    unions,
    write_records,
)
from stockpot.stages.influence.mix import balanced
from stockpot.stages.influence.permutation import permutation
from stockpot.stages.influence.planning import PLANNING
from stockpot.stages.influence.reporting import REPORTING
from stockpot.stages.influence.spans import PAIRS, THREADS, output_rows, part_sets
from stockpot.stages.influence.walk_inputs import outputs_of, owner_of, walk_of
from stockpot.stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.stage import Facts, Inputs, Reader, Writer

    Nodes = tuple[NDArray[np.int32], NDArray[np.int64]]

__all__ = ["STAGE"]

SPAN = 16_384  # outputs in a shard
_SAMPLE = 1024  # outputs whose captured PPR mass is measured


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """Spans of the sorted outputs, or of the parts that hold any; one shard without work where no
    PPR is needed.
    """
    ids = outputs_of(params, inputs)
    if _unpushed(params):
        return [Shard("all", 0, len(ids))]
    if params.method == "batch":
        # A shard begins with the first part whose outputs start in a new span.
        ends = np.cumsum(np.bincount(owner_of(ids, inputs)))
        cuts = np.flatnonzero(np.diff((ends - 1) // SPAN, prepend=-1)).tolist()
        bounds = list(pairwise([*cuts, len(ends)]))
    else:
        bounds = [(at, min(at + SPAN, len(ids))) for at in range(0, len(ids), SPAN)]
    return [Shard(f"{i:05d}", start, stop) for i, (start, stop) in enumerate(bounds)]


def _unpushed(params: Params) -> bool:
    """Whether records follow from their outputs without a PPR."""
    return params.method in ("cluster", ROWS) or params.whole


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """PPR of one span: the largest entries of each output or part."""
    if _unpushed(params):
        return {}
    return (part_sets if params.method == "batch" else output_rows)(params, inputs, shard, writer)


def finish(
    params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    """Group the outputs into records, unite their nodes and write them, one round after the
    other.
    """
    ids = outputs_of(params, inputs)
    records, group, nodes = _method(params, inputs, outputs, ids)
    found: list[tuple[NDArray[Any], ...]] = []
    captured = None
    for seed in range(params.rounds):
        record = group(seed)
        members, ptr = grouped(record, records)
        n_id, n_ptr = nodes(members, ptr)
        if params.whole:
            captured = 1.0
        elif seed == 0 and not _unpushed(params):
            captured = _captured(params, inputs, ids, record, n_id, n_ptr)
        found.append((members, ptr, n_id, n_ptr))
    members, n_id = (np.concatenate([one[i] for one in found]) for i in (0, 2))
    ptr, n_ptr = (_chained([one[i] for one in found]) for i in (1, 3))
    facts = {
        "split": params.split,
        "method": params.method,
        **write_records(writer, ids, members, ptr, n_id, n_ptr),
        "captured": captured,
        "num_nodes": int(inputs["graph"].facts["num_nodes"]),
        **({"edgeless": True} if params.method == ROWS else {}),
    }
    return facts if params.rounds == 1 else {**facts, "rounds": params.rounds}


def _method(
    params: Params, inputs: Inputs, outputs: Mapping[str, Reader], ids: NDArray[np.int32]
) -> tuple[int, Callable[[int], NDArray[np.int32]], Callable[..., Nodes]]:
    """Number of records in a round, the record of every output for a seed, and the nodes of the
    records.
    """
    records, cap = balanced(len(ids), params.outputs)
    if params.whole:
        every = np.arange(int(inputs["graph"].facts["num_nodes"]), dtype=np.int32)
        ends = len(every) * np.arange(records + 1, dtype=np.int64)
        return (
            records,
            lambda seed: at_random(len(ids), records, seed),
            lambda *_: (np.tile(every, records), ends),
        )
    if params.method == ROWS:
        return (
            records,
            lambda seed: at_random(len(ids), records, seed),
            lambda members, ptr: (ids[members], ptr),
        )
    if params.method in PARTED:
        owner = owner_of(ids, inputs)
        if params.method == "cluster":
            part = np.asarray(inputs["partition"].array("part"))
            ends = np.cumsum(np.bincount(part))
            by_part_ids = np.split(np.argsort(part, kind="stable").astype(np.int32), ends[:-1])
            sets = [by_part_ids[part] for part in np.unique(part[ids])]
        else:
            sets = np.split(_joined(outputs, "set"), np.cumsum(_joined(outputs, "sets"))[:-1])
            records, cap = (
                max(records, -(-len(sets) // params.mix) if params.mix else 0),
                params.outputs,
            )
        return (
            records,
            lambda seed: by_part(owner, records, cap, seed, params.mix),
            lambda members, ptr: unions(owner, members, ptr, sets),
        )
    from stockpot.stages.influence.pairs import overlaps, shared
    from stockpot.stages.influence.union import record_nodes

    top, num_nodes = _joined(outputs, "top"), int(inputs["graph"].facts["num_nodes"])

    def nodes(members: NDArray[np.int64], ptr: NDArray[np.int64]) -> Nodes:
        return record_nodes(ids, members, ptr, top, num_nodes)

    if params.method == "random":
        return records, lambda seed: at_random(len(ids), records, seed), nodes
    at = np.concatenate([[0], np.cumsum(_joined(outputs, "pairs"))]).astype(np.int64)
    pairs = overlaps(at, _joined(outputs, "pair"), _joined(outputs, "pair-value"))
    links = shared(top, _joined(outputs, "top-value"), num_nodes)
    return (
        records,
        lambda seed: by_influence(pairs, links, len(ids), records, cap, params.mix, seed),
        nodes,
    )


def _joined(outputs: Mapping[str, Reader], name: str) -> NDArray[Any]:
    return np.concatenate(
        [outputs[shard].array(f"part-{shard}-{name}") for shard in sorted(outputs)]
    )


def _chained(pointers: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Row pointers of arrays laid one after the other."""
    return np.concatenate(
        [[0], np.cumsum(np.concatenate([np.diff(ptr) for ptr in pointers]))]
    ).astype(np.int64)


def _captured(
    params: Params,
    inputs: Inputs,
    ids: NDArray[np.int32],
    record: NDArray[np.int32],
    n_id: NDArray[np.int32],
    n_ptr: NDArray[np.int64],
) -> float:
    """Mean share of an output's PPR mass inside its record, over a seeded sample of outputs."""
    from stockpot.stages.influence.push import workspace
    from stockpot.stages.influence.union import mass_inside

    graph, walk = walk_of(params, inputs)
    sample = np.sort(permutation(len(ids), 1)[:_SAMPLE])
    constants = (walk.spread, walk.settle, ids[sample], record[sample], params.alpha)
    shares = mass_inside(*graph, *constants, *workspace(walk.threshold), n_id, n_ptr)
    return round(float(shares.mean()), 6)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a node costs 8 read and 48 a thread + 44 held, an edge 4 (8 weighted), an output about
    24 k + 400.

    A directed graph is turned for the reference orientation: 24 an edge.
    """
    nodes, edges = int(facts["graph"]["num_nodes"]), int(facts["graph"]["nnz"])
    split = facts.get("split", {})
    count = int(split[params.source]) if params.source in ("train", "valid", "test") else nodes
    graph = 8 * nodes + (8 if facts["graph"].get("weighted") else 4) * edges
    if params.method == ROWS:
        written = params.rounds * 24 * count
        return Cost(read=4 * count, written=written, peak=(96 << 20) + 40 * count + 2 * written)
    if params.method in PARTED:
        # By mass as measured: 9 times the nodes at .95, 23 times at 1.
        share = 24.0 if params.mass else 2.0 * max(params.ratio, 1.0)
        rows = min(count + math.ceil(share * nodes), nodes * count)
    else:
        most = nodes * -(-count // params.outputs)
        rows = most if params.whole else min(count * (params.top_k + 1), most)
    written = params.rounds * (count * 12 + rows * 4)
    held = count * (params.top_k * 24 + PAIRS * 24 + 64)
    compiling = 96 << 20  # numba, the first time on a machine: measured up to 81 MB
    turned = (
        24 * edges if params.orientation == "reference" and facts["graph"].get("directed") else 0
    )
    peak = compiling + graph + turned + nodes * (48 * THREADS + 44) + held + 2 * written
    return Cost(read=graph + 4 * count, written=written, peak=peak)


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
    planning=PLANNING,
    reporting=REPORTING,
)
