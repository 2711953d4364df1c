"""Describes `judge`: which code `features.codec = "auto"` takes of features too large to be kept;
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.auto import code_bytes, exact_codec, keeps
from stockpot.stages.codec.feature_columns import features_of
from stockpot.stages.codec.format import describe
from stockpot.stages.errors import BadInput
from stockpot.stages.judge.ladder import ladder
from stockpot.stages.judge.planning import PLANNING
from stockpot.stages.judge.reporting import REPORTING
from stockpot.stages.judge.spending import JUDGED, MOST_STEP, judge_bytes, row_passes, sizes
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STAGE", "Params"]

"""Models that are judged by; features of others are kept without loss."""
_SEED = 0
_PILOT = 4096


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    model : of the network that judges.
    exact : codec that loses nothing, taken where no code is shown to cost little enough.
    levels : codes by bytes, from the most to the fewest.
    max_drop : share of accuracy that may be lost.
    rows : row-passes that may be spent.
    """

    model: str
    exact: str
    levels: tuple[tuple[str, ...], ...]
    max_drop: float
    rows: int
    seed: int = _SEED


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params | None:
    """None where features are kept, whatever a judge might say: nothing is measured then."""
    graph, model = features_of(facts), str(recipe["train.model"])
    max_drop = float(recipe["features.max_accuracy_drop"])
    if not 0 <= max_drop <= 1:
        raise BadInput(
            f"features.max_accuracy_drop: expected a share from 0 to 1, found {max_drop}",
            fix="--set features.max_accuracy_drop=0.002",
        )
    if graph["features"] == "none" or not graph["num_features"]:
        return None  # refused by `quantize`
    if keeps(recipe, graph) or max_drop == 0 or model not in JUDGED:
        return None
    columns, nodes, exact = int(graph["num_features"]), int(graph["num_nodes"]), exact_codec(graph)
    levels = ladder(nodes, columns, code_bytes(describe(exact, columns), graph))
    if not levels:
        return None
    return Params(model, exact, levels, max_drop, row_passes(int(facts["split"]["train"])))


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.judge.decision import Decision
    from stockpot.stages.judge.network import Trainee, Trial, network_config
    from stockpot.stages.judge.sample_features import SampleRows
    from stockpot.stages.judge.sample_records import Maker
    from stockpot.stages.train.evaluate import settings

    graph, rng = inputs["graph"], np.random.default_rng(params.seed)
    facts: dict[str, Any] = {
        "codec": params.exact,
        "rate": [],
        "model": params.model,
        "rows_allowed": params.rows,
    }
    y = np.asarray(graph.array("y"))
    splits = [
        np.asarray(inputs["split"].array(name)).astype(np.int32) for name in ("train", "valid")
    ]
    splits = [ids[y[ids] >= 0] for ids in splits]
    few = (
        f"{len(splits[0])} training and {len(splits[1])} validation outputs with labels are too "
        f"few to judge a code by "
        "within a tenth of their training"
    )
    features = Features.of(inputs)
    size = sizes(
        params.rows, 1.0, len(splits[0]), len(splits[1]), features.num_features
    )  # a row for each, at least
    if size is None:
        return {**facts, "reason": few, "row_passes": 0, "judged_on": 0}
    maker, mixed = Maker(graph), [rng.permutation(ids) for ids in splits]
    train = maker.records(np.sort(mixed[0][:_PILOT]), MOST_STEP // 2, params.seed)
    for _ in range(
        2
    ):  # a first look at few outputs, which share less, then at as many as these rows carry
        per_output = sum(len(r.n_id) for r in train) / sum(len(r.y) for r in train)
        size = sizes(params.rows, per_output, len(splits[0]), len(splits[1]), features.num_features)
        if size is None:
            return {**facts, "reason": few, "row_passes": 0, "judged_on": 0}
        train = maker.records(np.sort(mixed[0][: size.train]), size.step, params.seed)
    assert size is not None
    valid = maker.records(np.sort(mixed[1][: size.valid]), 2 * MOST_STEP, params.seed)
    sample = SampleRows(features, train, valid)
    with settings(writer.threads):
        trials = [
            [Trial(record, sample.places(record)) for record in records]
            for records in (train, valid)
        ]
        classes = int(graph.facts["num_classes"])
        config = network_config(params.model, features.num_features, classes)
        trainee = Trainee(config, trials[0], trials[1], params.seed)
        writer.progress(0, params.rows, "training on fp32")
        trainee.stem(sample.exact)
        nodes = int(graph.facts["num_nodes"])
        decision = Decision(trainee, sample, nodes, params.max_drop, params.rows, params.seed)
        taken = decision.taken(
            params.levels, lambda name: writer.progress(trainee.spent, params.rows, name)
        )
    if taken == "fp16" and not _within_halves(features):
        taken = None
    row = next((r for r in decision.table if r.codec == taken), None)
    return {
        **facts,
        "codec": taken or params.exact,
        "reason": decision.reason,
        "rate": [r.to_json() for r in decision.table],
        "nmse_aggregated": 0.0 if row is None else row.nmse_aggregated,
        "accuracy": decision.accuracy,
        "row_passes": trainee.spent,
        "judged_on": sum(int((t.record.y >= 0).sum()) for t in trials[1]),
        "trained_on": sum(len(t.record.y) for t in trials[0]),
        "rows": [sum(len(t.places) for t in part) for part in trials],
    }


def _within_halves(features: Any) -> bool:
    """Whether all values, not only those of the sample, are in the range of half floats."""
    from stockpot.stages.codec.encode import FP16_MAX

    return all(float(abs(block).max(initial=0.0)) <= FP16_MAX for _, block in features.chunks())


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    nodes, nnz = int(facts["graph"]["num_nodes"]), int(facts["graph"]["nnz"])
    columns = int(features_of(facts)["num_features"])
    rows = min(params.rows, nodes)
    peak = (
        (320 << 20)
        + judge_bytes(nodes, columns, params.rows)
        + 12 * min(nnz, rows * (nnz // max(1, nodes) + 1))
    )
    note = (
        f"a {params.model} judges codes of features by at most {params.rows:,} rows of short "
        f"trainings"
    )
    return Cost(8 * nodes + 4 * nnz + 4 * columns * rows, 1 << 12, peak, note=note)


STAGE = Stage(
    name="judge",
    version=2,
    exact=False,
    params=Params,
    roles=("graph", "propagated", "split"),
    reads=(
        "features.codec",
        "features.lossless_up_to",
        "features.max_accuracy_drop",
        "train.model",
    ),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
