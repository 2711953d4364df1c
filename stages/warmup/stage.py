"""Describes `warmup`: the first epochs of ingredient 0, kept with the optimiser's moments for all
ingredients.

Trainings that branch after some shared epochs end in one linearly connected region, those that
branch at random weights mostly do not (arXiv 1912.05671): such ingredients can be averaged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stockpot.stages.stage import Cost, Facts, Inputs, Reporting, Shard, Stage, Writer
from stockpot.stages.train.reporting import read_curve
from stockpot.stages.train.stage import STAGE as TRAIN
from stockpot.stages.train.stage import trained
from stockpot.stages.train.train_params import Params, resolve
from stockpot.stages.train.training_cost import cost
from stockpot.stages.warmup.planning import PLANNING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STAGE"]

_OWN = {
    "train.vary": 1.0,
    "train.ema": 0.0,
    "train.patience": 1,
    "train.keep": "best",
    "train.ingredients": 1,
}
"""Of `[train]`, what only ingredients read, and what stands for it here."""


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    return resolve({**recipe, **_OWN, "index": 0}, facts)


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    return trained(params, inputs, writer, warmup=writer.path("start.safetensors"))


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    # Its epochs are those that the ingredients leave out; it stores moments, too.
    whole = cost(replace(params, warmup=params.epochs - params.warmup), facts)
    return replace(whole, written=4 * whole.written)


STAGE = Stage(
    name="warmup",
    version=2,
    exact=False,
    params=Params,
    roles=("train", "valid", "order", "exchange", "loads"),
    reads=tuple(key for key in TRAIN.reads if key not in _OWN),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=Reporting(read=read_curve),
)
