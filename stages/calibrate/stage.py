"""Describes `calibrate`: which precision `train.precision = "auto"` is, measured in milliseconds;
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.calibrate.planning import PLANNING
from stockpot.stages.calibrate.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.training_cost import TORCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STAGE", "Params"]

ROWS = 4096
"""Of the matrix that is multiplied: as a step of training has, more or less."""
WORTH = 0.9
"""bf16 is taken where it takes no more than this share of the time of fp32: less is not worth
narrower numbers."""


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    device : "cpu" or "cuda", without its number: the devices of a machine are alike.
    width : of the products, `train.hidden`.
    """

    device: str
    width: int


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    device = resolved_device(str(recipe["train.device"]), int(recipe["train.ranks"]))
    return Params(device.partition(":")[0], int(recipe["train.hidden"]))


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.calibrate.product_seconds import product_seconds
    from stockpot.stages.kernels.precision import bf16_flags
    from stockpot.stages.train.evaluate import settings

    with settings(writer.threads):
        seconds = product_seconds(params.device, ROWS, params.width)
    wide, narrow = seconds["fp32"], seconds["bf16"]
    assert wide is not None  # every device has it
    return {
        "precision": "bf16" if narrow is not None and narrow <= WORTH * wide else "fp32",
        "fp32_ms": 1000 * wide,
        "bf16_ms": None if narrow is None else 1000 * narrow,
        "device": params.device,
        "flags": bf16_flags() if params.device == "cpu" else [],
        "rows": ROWS,
        "width": params.width,
        "threads": writer.threads,
    }


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a few matrices, whatever the graph."""
    return Cost(0, 1 << 12, TORCH_BYTES + 24 * params.width * (ROWS + params.width))


STAGE = Stage(
    name="calibrate",
    version=1,
    exact=False,
    params=Params,
    roles=(),
    reads=("train.device", "train.ranks", "train.hidden"),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
