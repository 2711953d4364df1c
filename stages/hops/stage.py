"""Describes `hops`: how often features are multiplied by the graph where `features.propagate` is
"auto"; recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.hops.hop_spending import (
    LAYERS,
    LR,
    MOST_COLUMNS,
    MOST_HOPS,
    SEEDS,
    hops_bytes,
    rows_allowed,
    sizes,
)
from stockpot.stages.hops.planning import PLANNING
from stockpot.stages.hops.reporting import REPORTING
from stockpot.stages.judge.spending import JUDGED, MOST_STEP
from stockpot.stages.propagate.multiplier import columns_at_once, matrix_of
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["STAGE", "Params"]

STORED = ("gcn", "sage")
"""Models whose first layer the products stand for; see `stages/train/train_params.stored_hops`."""
_PILOT = 4096


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    model : of the network that judges.
    hops : that are judged at most.
    adj, normalization, self_loops : the matrix, see `stockpot.stages.propagate.stage.Params`.
    columns : that are multiplied at a time.
    rows : row-passes that may be spent.
    """

    model: str
    hops: int
    adj: str
    normalization: str
    self_loops: bool
    columns: int
    rows: int
    seed: int = 0


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params | None:
    """None where no feature is multiplied, whatever a judge might say."""
    graph, model = facts["graph"], str(recipe["train.model"])
    columns = int(graph["num_features"] or 0)
    if graph["features"] == "none" or not 0 < columns <= MOST_COLUMNS or model not in JUDGED:
        return None
    slab = columns_at_once(int(graph["num_nodes"]), columns)
    rows = rows_allowed(int(facts["split"]["train"]))
    return Params(model, MOST_HOPS, **matrix_of(recipe), columns=slab, rows=rows)


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.hops.choice import choose
    from stockpot.stages.hops.sample_products import SampleProducts
    from stockpot.stages.judge.network import Trainee, Trial, network_config
    from stockpot.stages.judge.sample_records import Maker
    from stockpot.stages.train.evaluate import settings

    graph, rng = inputs["graph"], np.random.default_rng(params.seed)
    y, columns = np.asarray(graph.array("y")), int(graph.facts["num_features"])
    ids = [np.asarray(inputs["split"].array(name)).astype(np.int32) for name in ("train", "valid")]
    train_ids, valid_ids = (rng.permutation(part[y[part] >= 0]) for part in ids)
    facts: dict[str, Any] = {"hops": 0, "table": [], "model": params.model, "row_passes": 0}
    facts |= {"rows_allowed": params.rows, "judged_on": 0, "trained_on": 0}
    few = (
        f"{len(train_ids)} training and {len(valid_ids)} validation outputs with labels are too "
        f"few to judge by"
    )
    wide = (params.hops + 1) * columns
    size = sizes(params.rows, 1.0, len(train_ids), len(valid_ids), wide)  # a row each, at least
    if size is None:
        return {**facts, "reason": few}
    maker = Maker(graph)
    train = maker.records(np.sort(train_ids[:_PILOT]), MOST_STEP // 2, params.seed)
    for _ in range(2):
        # A first look at few outputs, which share less, then at as many as the rows carry.
        per_output = sum(len(r.n_id) for r in train) / sum(len(r.y) for r in train)
        size = sizes(params.rows, per_output, len(train_ids), len(valid_ids), wide)
        if size is None:
            return {**facts, "reason": few}
        train = maker.records(np.sort(train_ids[: size.train]), size.step, params.seed)
    assert size is not None
    valid = maker.records(np.sort(valid_ids[: size.valid]), 2 * MOST_STEP, params.seed)
    sample = SampleProducts(graph, params, params.columns, [*train, *valid], writer.threads)
    hits: dict[int, list[NDArray[np.bool_]]] = {}
    passes: dict[int, int] = {}
    with settings(writer.threads):
        trials, asked = (
            [Trial(record, sample.places(record)) for record in records]
            for records in (train, valid)
        )
        for hops in range(params.hops + 1):
            stored = hops if params.model in STORED else 0
            config = network_config(
                params.model,
                (hops + 1) * columns,
                int(graph.facts["num_classes"]),
                layers=LAYERS - bool(stored),
                stored=stored,
                normalization=params.normalization,
                self_loops=params.self_loops,
            )
            hits[hops], read = [], 0
            for seed in range(params.seed, params.seed + SEEDS):
                trainee = Trainee(
                    config, trials, asked, seed, "hops", "--set features.propagate=0", LR
                )
                trainee.stem(sample.of(hops))
                hits[hops].append(trainee.branch(sample.of(hops), 0))
                read += trainee.read
                facts["row_passes"] += trainee.spent
            passes[hops] = read // SEEDS
            writer.progress(hops + 1, params.hops + 1, "numbers of hops")
    taken, table, reason = choose(hits, passes)
    return {
        **facts,
        "hops": taken,
        "reason": reason,
        "table": [row.to_json() for row in table],
        "judged_on": len(hits[0][0]),
        "trained_on": sum(len(r.y) for r in train),
    }


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: two arrays of the columns that are multiplied, and a sample of bounded size.

    The graph is read once a hop and slab of columns, as `propagate` reads it.
    """
    graph = facts["graph"]
    nodes, nnz, columns = (int(graph[name]) for name in ("num_nodes", "nnz", "num_features"))
    slabs = -(-columns // params.columns)
    edges = 8 * nodes + (8 if graph.get("weighted") else 4) * nnz
    own = 4 * nodes * columns if graph["features"] == "dense" else 8 * int(graph["x_nnz"])
    rows = min(params.rows, nodes)
    peak = (
        (320 << 20)
        + hops_bytes(nodes, columns, params.columns, params.rows)
        + 12 * min(nnz, rows * (nnz // max(1, nodes) + 1))
    )
    note = (
        f"a {params.model} judges {params.hops} hops of propagated features by about "
        f"{params.rows:,} rows of short trainings"
    )
    read = slabs * (own + params.hops * edges)
    return Cost(read, 1 << 12, peak, note=note, mend="--set features.propagate=0")


STAGE = Stage(
    name="hops",
    version=1,
    exact=False,
    params=Params,
    roles=("graph", "split"),
    reads=("features.propagate_by", "train.model", "graph.normalization", "graph.self_loops"),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
