"""Describes `sizing`: what `batches.top_k`, `outputs`, `mix` and `graph.mass` are where a recipe
says "auto".

Its facts only resolve parameters of `influence` and `train`, which hash what was decided, not how:
their keys are those of a recipe that names the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.influence.batch_params import UNMIXED, most_outputs
from stockpot.stages.node import SPLITS
from stockpot.stages.sizing.planning import PLANNING
from stockpot.stages.sizing.record_size import ALL, MASS_FROM, choose
from stockpot.stages.sizing.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["STAGE", "Params"]

_FEWEST = {
    "train": 1,
    "valid": 2,
    "test": 1,
}  # soups are made on one half of the validation records
_SAMPLE = 65_536  # as stockpot.stages.sizing.sample.SAMPLE, which imports numba
_MOST_K = 64


@dataclass(frozen=True)
class Params:
    """As the recipe has them; `top_k`, `outputs` and `mix` of 0 are to be chosen, a `top_k` of -1
    is all nodes. `columns`: of propagated features; 0: as the graph has.
    """

    method: str
    alpha: float
    eps: float
    self_loops: bool
    top_k: int
    outputs: int
    mix: int
    columns: int = added(0)


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    asked = {name: recipe[f"batches.{name}"] for name in ("top_k", "outputs", "mix")}
    return Params(
        method=str(recipe["batches.method"]),
        alpha=float(recipe["batches.alpha"]),
        eps=float(recipe["batches.eps"]),
        self_loops=bool(recipe["graph.self_loops"]),
        columns=int(facts.get("propagated", {}).get("num_features", 0)),
        **{name: {"auto": 0, "all": -1}.get(value, value) for name, value in asked.items()},
    )


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    return [Shard(split) for split in SPLITS]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.influence.walk_inputs import walk_of
    from stockpot.stages.sizing.measure import Measure

    facts = inputs["graph"].facts
    outputs = np.asarray(inputs["split"].array(shard.name))
    graph, walk = walk_of(params, inputs)
    random = params.method == "random"
    measure = Measure(graph, walk, params.alpha, outputs, random, writer.threads, writer.progress)
    found, looked = choose(
        measure.of,
        measure.whole,
        base=most_outputs("auto", len(outputs), shard.name),
        count=len(outputs),
        fewest=min(len(outputs), _FEWEST[shard.name]),
        measurable=measure.most_outputs,
        nodes=int(facts["num_nodes"]),
        num_features=params.columns or int(facts["num_features"] or 0),
        exact=shard.name != "train",
        top_k=ALL if params.top_k < 0 else params.top_k,
        outputs=params.outputs,
        mix=1 if shard.name in UNMIXED else params.mix,
    )
    return {**found.to_json(), "enough": found.enough, "looked": [one.to_json() for one in looked]}


def _finish(
    params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    splits = {split: dict(shards[split].facts) for split in SPLITS}
    return {"splits": splits, "mass": "row" if splits["train"]["held"][0] < MASS_FROM else "none"}


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a node costs 8 read, 64 a thread and 40 held, an edge 4 (8 weighted), an output 64 k +
    400.
    """
    nodes, edges = int(facts["graph"]["num_nodes"]), int(facts["graph"]["nnz"])
    graph = 8 * nodes + (8 if facts["graph"].get("weighted") else 4) * edges
    outputs = min(_SAMPLE, max(int(facts["split"][split]) for split in SPLITS))
    peak = (
        (96 << 20)
        + graph
        + nodes * (4 * 48 + 40)
        + outputs * (64 * max(params.top_k, _MOST_K) + 400)
    )
    return Cost(len(SPLITS) * graph, 1 << 16, peak)


STAGE = Stage(
    name="sizing",
    version=3,
    exact=True,
    params=Params,
    roles=("graph", "split"),
    reads=(
        "batches.method",
        "batches.alpha",
        "batches.eps",
        "batches.top_k",
        "batches.outputs",
        "batches.mix",
        "graph.self_loops",
    ),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
