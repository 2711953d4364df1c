"""Parameters of sampled batches, every value checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.influence.batch_params import count_of, most_outputs
from stockpot.stages.sample.limits import check
from stockpot.stages.stage import added

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.stage import Facts

__all__ = ["READS", "Params", "resolve"]

READS = (
    "batches.method",
    "batches.outputs",
    "batches.rounds",
    "batches.fanouts",
    "batches.kappa",
    "batches.importance_sampling",
    "batches.layer_dependency",
    "batches.seeds",
    "infer.split",
    "infer.top_k",
)
SEEDS = {"train": 0, "valid": 1, "test": 2, "infer": 2}
"""Variates of a split: none is judged by the samples another was fitted on."""


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    split : split the records are for.
    source : where its outputs come from: train | valid | test (the split), all (every node), nodes
        (a file of ids).
    outputs : most outputs in a record.
    rounds : sets of records, each holding every output once, with neighbours of its own.
    method, fanouts, importance_sampling, layer_dependency, kappa, seed : as of
        `stages.sample.batch.Sampling`. Splits that are evaluated have kappa 1: where they drifted,
        what is measured would depend on kappa too.
    seeds : which outputs go together: "random", or "community", neighbours in the partition.
    """

    split: str
    source: str
    outputs: int
    rounds: int
    method: str
    fanouts: tuple[int, ...]
    importance_sampling: int
    layer_dependency: bool
    kappa: int | None
    seed: int
    seeds: str = added("random")


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values and resolve `outputs` from the number of outputs.

    Raises
    ------
    BadInput
        A value is outside its range.
    """
    kappa = None if values["batches.kappa"] == "inf" else int(values["batches.kappa"])
    method, fanouts = str(values["batches.method"]), tuple(values["batches.fanouts"])
    importance_sampling = int(values["batches.importance_sampling"])
    check(method, fanouts, importance_sampling, kappa)
    split = values["split"]
    source = split
    if split == "infer":
        chosen = values["infer.split"]
        source = chosen if chosen in ("test", "all") else "nodes"
        if values["infer.top_k"]:
            raise BadInput(
                f"infer.top_k: expected 0 with sampled batches (sized by fanouts), found "
                f"{values['infer.top_k']}",
                fix="--set infer.top_k=0",
            )
    return Params(
        split=split,
        source=source,
        outputs=most_outputs(values["batches.outputs"], count_of(source, facts), split),
        rounds=int(values["batches.rounds"]) if split == "train" else 1,
        method=method,
        fanouts=fanouts,
        importance_sampling=importance_sampling,
        layer_dependency=bool(values["batches.layer_dependency"]),
        kappa=kappa if split == "train" else 1,
        seed=SEEDS[split],
        seeds=str(values["batches.seeds"]),
    )
