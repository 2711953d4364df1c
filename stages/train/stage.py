"""Describes `train`: one ingredient, a pure function of the recipe's `[train]`, its index and the
packed records.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stockpot.stages.stage import Inputs, Shard, Stage, Writer
from stockpot.stages.train.devices import gpus_here
from stockpot.stages.train.planning import PLANNING
from stockpot.stages.train.reporting import REPORTING
from stockpot.stages.train.train_params import Params, model_config, resolve, widest
from stockpot.stages.train.training_cost import PREFETCH, cost, edge_floats, shared_how

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stockpot.stages.loader.steps import Steps
    from stockpot.stages.processes.process_group import Team
    from stockpot.stages.train.holdout import Outputs
    from stockpot.stages.train.trainer import Result

__all__ = ["STAGE", "trained"]

_SCORES = ("valid_accuracy", "valid_loss")


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    start = inputs["start"].path("start.safetensors") if params.warmup else None
    return trained(params, inputs, writer, start=start)


def trained(
    params: Params,
    inputs: Inputs,
    writer: Writer,
    *,
    start: Path | None = None,
    warmup: Path | None = None,
) -> dict[str, Any]:
    """Train on packed records, write the model or those of the tail and `history.json`, return the
    facts; see `trainer.train`.
    """
    from stockpot.stages.train.ingredient import MODEL, model_file
    from stockpot.stages.train.model import save_model

    packed = inputs["train"].facts
    folder, threads = writer.scratch(), max(1, writer.threads // params.ranks)
    options: dict[str, Any] = {
        "params": params,
        "folder": folder,
        "threads": threads,
        "start": start,
        "warmup": warmup,
    }
    if params.ranks == 1:
        result = fitted(None, inputs, writer.progress, **options)
    else:
        from stockpot.stages.processes.process_group import led

        with led(params.ranks, fitted, inputs, device=params.device, **options) as team:
            result = fitted(team, inputs, writer.progress, **options)
    identity = {role: inputs[role].digest for role in sorted(inputs)}
    facts: dict[str, Any] = {
        "seed": params.seed + params.index,
        "index": params.index,
        "epochs": len(result.history),
        "best_epoch": int(result.best["epoch"]),
        "valid_accuracy": float(result.best["accuracy"]),
        "valid_loss": float(result.best["loss"]),
        "layers": params.layers,
        "hidden": widest(params),
        "num_parameters": sum(p.numel() for p in result.model.parameters()),
        "init_digest": result.init_digest,
    }
    if params.model not in ("gcn", "sage"):
        facts["edge_floats"] = edge_floats(params, packed)
    if params.model == "sage-lstm":
        facts["sequential"] = True
    if params.ranks > 1:
        facts["shared"] = {
            "ranks": params.ranks,
            **shared_how(params, inputs["exchange"].facts, packed),
        }
        writer.note("exchange", facts["shared"]["why"])
    if params.tail:
        rows = {int(row["epoch"]): row for row in result.history}
        facts["models"] = [
            {"epoch": epoch, **{name: rows[epoch][name] for name in _SCORES}}
            for epoch in params.tail_epochs
        ]
        first = max(facts["models"], key=lambda one: (one["valid_accuracy"], -one["valid_loss"]))
        facts |= {"best_epoch": first["epoch"], **{name: first[name] for name in _SCORES}}
        for i, (said, state) in enumerate(zip(facts["models"], result.tail, strict=True)):
            result.model.load_state_dict(state)
            own = {name: value for name, value in facts.items() if name != "models"}
            save_model(
                writer.path(model_file(i)), result.model, {**own, **said, "inputs": identity}
            )
    else:
        save_model(writer.path(MODEL), result.model, {**facts, "inputs": identity})
    writer.path("history.json").write_text(
        json.dumps(result.history, indent=1, sort_keys=True) + "\n"
    )
    writer.note("seconds", result.seconds)
    writer.note("seconds_per_epoch", result.seconds / max(1, len(result.history)))
    writer.note("remarks", result.words)
    if (here := gpus_here())["present"]:
        writer.note("gpus", here)
    return facts


def fitted(
    team: Team | None,
    inputs: Inputs,
    report: Callable[[int, int, str], None] | None = None,
    *,
    params: Params,
    folder: Path,
    threads: int,
    start: Path | None,
    warmup: Path | None,
) -> Result:
    """Train on packed records, alone or as one rank of a team; see `trainer.train`."""
    from stockpot.stages.loader.options import Delivery, RankPart, Schedule, Source
    from stockpot.stages.train.evaluate import open_steps
    from stockpot.stages.train.holdout import Outputs
    from stockpot.stages.train.model import build_model
    from stockpot.stages.train.trainer import train

    config = model_config(params, inputs["train"].facts)
    model = build_model(config, params.seed)
    device = params.device if team is None else team.device(params.device)
    member = None
    if team is not None:
        mode = shared_how(params, inputs["exchange"].facts, inputs["train"].facts)["mode"]
        member = RankPart(
            team.rank, team.size, inputs["exchange"] if mode == "cooperative" else None
        )
    train_steps = open_steps(
        Source.from_reader(inputs["train"], inputs.get("order"), inputs.get("loads")),
        model,
        Schedule(params.per_step, seed=params.seed + params.index),
        Delivery(PREFETCH, device),
        training=True,
        member=member,
    )
    mine = (
        Schedule(shuffle=False)
        if team is None
        else Schedule(shuffle=False, rank=team.rank, world_size=team.size)
    )
    valid_steps: Steps | Outputs = open_steps(
        inputs["valid"], model, mine, Delivery(PREFETCH, device)
    )
    if params.holdout:
        valid_steps = Outputs(valid_steps, params.holdout, held=False)
    return train(
        params,
        config,
        train_steps,
        valid_steps,
        folder,
        threads,
        report or _unheard,
        {role: inputs[role].digest for role in sorted(inputs)},
        start=start,
        warmup=warmup,
        team=team,
        device=device,
    )


def _unheard(done: int, total: int, text: str) -> None:
    """Progress of a rank that nobody listens to."""


STAGE = Stage(
    name="train",
    version=2,
    exact=False,
    params=Params,
    roles=("train", "valid", "order", "start", "exchange", "loads"),
    reads=(
        "train.model",
        "train.per_step",
        "train.layers",
        "train.hidden",
        "train.heads",
        "train.dropout",
        "train.lr",
        "train.weight_decay",
        "train.schedule",
        "train.epochs",
        "train.patience",
        "train.keep",
        "train.validate",
        "train.ingredients",
        "train.warmup",
        "train.vary",
        "train.ema",
        "train.precision",
        "train.seed",
        "train.device",
        "train.ranks",
        "train.exchange",
        "train.storage_gbs",
        "train.interconnect_gbs",
        "graph.normalization",
        "graph.mass",
        "graph.self_loops",
        "soup.holdout",
    ),
    resolve=resolve,
    run=_run,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
