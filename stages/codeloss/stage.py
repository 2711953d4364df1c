"""Describes `codeloss`: validation accuracy of the chosen model with exact and with coded features;
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.feature_columns import features_of
from stockpot.stages.codec.format import EXACT
from stockpot.stages.codeloss.planning import PLANNING
from stockpot.stages.codeloss.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.training_cost import TORCH_BYTES, step_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STAGE", "Params"]

_HIDDEN = 1024  # width reckoned with: no facts of a soup say its own


@dataclass(frozen=True)
class Params:
    """`codec` of the features; `device` the model is asked on."""

    codec: str
    device: str


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params | None:
    """None where the code loses nothing."""
    codec = str(facts["codes"]["codec"])
    return (
        None
        if codec in EXACT and not facts["codes"]["nmse"]
        else Params(codec, resolved_device(str(recipe["train.device"])))
    )


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import torch

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.loader.options import Delivery, Schedule
    from stockpot.stages.train.evaluate import Score, open_steps, score, settings
    from stockpot.stages.train.model import load_model

    soup, features = inputs["soup"], Features.of(inputs)
    model = load_model(soup.path(f"soup-{soup.facts['chosen']}.safetensors")).to(params.device)
    exact, coded = Score(), Score()
    with settings(writer.threads), torch.no_grad():
        steps = open_steps(
            inputs["valid"], model, Schedule(shuffle=False), Delivery(device=params.device)
        )
        for done, step in enumerate(steps):
            coded += score(model(step.x, step.adjs), step.y)
            rows = torch.from_numpy(features.rows(step.n_id.cpu().numpy())).to(params.device)
            exact += score(model(rows, step.adjs), step.y)
            writer.progress(done + 1, len(steps), "records")
    return {
        "codec": params.codec,
        "chosen": str(soup.facts["chosen"]),
        "labelled": coded.labelled,
        "valid_accuracy": coded.accuracy if coded.labelled else None,
        "fp32_valid_accuracy": exact.accuracy if exact.labelled else None,
        "accuracy_drop": exact.accuracy - coded.accuracy if exact.labelled else None,
    }


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    packed, graph = facts["valid"], features_of(facts)
    weights = 4 * int(facts["soup"].get("num_parameters", 0))
    rows = 4 * int(graph["num_features"]) * int(packed["max_rows"])
    read = int(packed["bytes"]) + int(packed.get("gather_bytes", 0)) + weights
    read += 4 * int(graph["num_features"]) * int(packed["rows"])
    return Cost(read, 1 << 12, TORCH_BYTES + step_bytes(_HIDDEN, packed) + rows + weights)


STAGE = Stage(
    name="codeloss",
    version=1,
    exact=False,
    params=Params,
    roles=("valid", "soup", "graph", "propagated"),
    reads=("train.device",),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
