"""One span of PPR work, on several threads: the largest entries of outputs, or the nodes of parts.

Every output and every part is pushed for itself, so neither the spans nor the threads change a bit
of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.influence.walk_inputs import outputs_of, owner_of, set_walk, walk_of
from stockpot.stages.kernels.threads import by_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.influence.batch_params import Params
    from stockpot.stages.influence.walk import Walk
    from stockpot.stages.influence.walk_inputs import Arrays
    from stockpot.stages.stage import Inputs, Shard, Writer

__all__ = ["PAIRS", "THREADS", "Entries", "largest_entries", "output_rows", "part_sets"]

# entries at other outputs kept for each output: more change the replication by less than 0.5 %
PAIRS = 16
THREADS = 4  # most threads of a task: each has up to 48 bytes a node of its own
_CHUNK = 512  # outputs a thread takes at a time


@dataclass(frozen=True)
class Entries:
    """Largest entries of some outputs' PPR, as of `push_top`.

    Attributes
    ----------
    top, top_value : i4[S, k], f4[S, k], padded with -1, 0.
    pair, pair_value : i4[S, q], f4[S, q], entries at other outputs by their positions, padded with
        -1, 0.
    """

    top: NDArray[np.int32]
    top_value: NDArray[np.float32]
    pair: NDArray[np.int32]
    pair_value: NDArray[np.float32]


def largest_entries(
    graph: Arrays,
    walk: Walk,
    alpha: float,
    outputs: NDArray[np.int32],
    seeds: NDArray[np.int32],
    top_k: int,
    pairs: int,
    threads: int,
    progress: Callable[[int, int, str], None],
) -> Entries:
    """Push each of `seeds`: its `top_k` largest entries, and its `pairs` largest at other ones of
    `outputs`.
    """
    from stockpot.stages.influence.push import push_top, workspace

    position = np.full(len(graph[0]) - 1, -1, np.int32)
    position[outputs] = np.arange(len(outputs), dtype=np.int32)
    shape, pair_shape = (len(seeds), top_k), (len(seeds), pairs)
    found = Entries(
        np.empty(shape, np.int32),
        np.empty(shape, np.float32),
        np.empty(pair_shape, np.int32),
        np.empty(pair_shape, np.float32),
    )
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
                alpha,
                position,
                *space,
                found.top[part],
                found.top_value[part],
                found.pair[part],
                found.pair_value[part],
            )
            if worker == 0:
                progress(min(at + _CHUNK, len(seeds)), len(seeds), "outputs")

    by_workers(work, min(threads, THREADS, len(starts)))
    return found


def output_rows(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Largest entries of each output of the span and, for "node", its largest entries at other
    outputs.
    """
    graph, walk = walk_of(params, inputs)
    outputs = outputs_of(params, inputs)
    seeds = outputs[shard.start : shard.stop]
    width = PAIRS if params.method == "node" else 0
    found = largest_entries(
        graph,
        walk,
        params.alpha,
        outputs,
        seeds,
        params.top_k,
        width,
        writer.threads,
        writer.progress,
    )
    writer.array(f"part-{shard.name}-top", found.top)
    if width:
        held = found.pair >= 0
        writer.array(f"part-{shard.name}-top-value", found.top_value)
        writer.array(f"part-{shard.name}-pairs", held.sum(axis=1).astype(np.int32))
        writer.array(f"part-{shard.name}-pair", found.pair[held])
        writer.array(f"part-{shard.name}-pair-value", found.pair_value[held])
    return {"outputs": len(seeds)}


def part_sets(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Nodes of each part of the span (of those with outputs): the most influential ones and the
    outputs, sorted.
    """
    from stockpot.stages.influence.push import workspace
    from stockpot.stages.influence.sets import holding, largest, push_set

    walk, ids = set_walk(params, inputs), outputs_of(params, inputs)
    owner = owner_of(ids, inputs)
    listed = ids[np.argsort(owner, kind="stable")]
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner))])
    most = math.ceil(params.ratio * len(walk.settle) / int(inputs["partition"].facts["parts"]))
    found: list[NDArray[np.int32]] = [ids[:0]] * (shard.stop - shard.start)

    def work(worker: int, workers: int) -> None:
        space = workspace(walk.threshold)
        for at in range(worker, len(found), workers):
            seeds = listed[ptr[shard.start + at] : ptr[shard.start + at + 1]]
            nodes, values = push_set(
                *walk.arrays, walk.leaving, walk.entering, walk.settle, seeds, params.alpha, *space
            )
            kept = (
                holding(nodes, values, params.mass, seeds)
                if params.mass
                else largest(nodes, values, most)
            )
            found[at] = np.union1d(kept, seeds)
            if worker == 0:
                writer.progress(at + 1, len(found), "parts")

    by_workers(work, min(writer.threads, THREADS, len(found)))
    writer.array(f"part-{shard.name}-set", np.concatenate(found))
    writer.array(f"part-{shard.name}-sets", np.array([len(nodes) for nodes in found], np.int64))
    return {"parts": len(found)}
