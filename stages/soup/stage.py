"""Describes `soup`: the methods, what is refused, and which soup is chosen on the validation records."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import BadInput
from stages.soup.alike import check_alike
from stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added
from stages.train.stage import TORCH_BYTES, resolved_device, step_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.train.evaluate import Score

__all__ = ["METHODS", "STAGE", "Params", "ingredients"]

METHODS = ("best", "uniform", "greedy")
"""From the simplest on: a tie on validation goes to the simpler."""
_LATER = ("gis", "learned", "partition")
_HIDDEN = 1024  # width reckoned with until an ingredient says its own


@dataclass(frozen=True)
class Params:
    """`method`: "auto", the best of `METHODS` on validation, or one of them. "best" is made in any case.

    `device`: where candidates are evaluated; averages are made on the CPU.
    """

    method: str
    device: str = added("cpu")


def ingredients(roles: Mapping[str, Any]) -> list[str]:
    """Roles "ingredient:0", "ingredient:1", ... in the order of their numbers."""
    return sorted((role for role in roles if role.startswith("ingredient:")), key=lambda role: int(role.split(":")[1]))


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    method, holdout = str(recipe["soup.method"]), float(recipe["soup.holdout"])
    if method in _LATER:
        raise BadInput(
            f"soup.method: {method!r} is not available in this version; expected auto, {', '.join(METHODS)}",
            fix="--set soup.method=auto",
        )
    if method not in ("auto", *METHODS):
        raise BadInput(
            f"soup.method: expected auto, {', '.join(METHODS)}, found {method!r}", fix="--set soup.method=auto"
        )
    if holdout != 0:
        raise BadInput(
            f"soup.holdout: a share held out for souping is not available; expected 0, found {holdout:g}",
            fix="--set soup.holdout=0.0",
        )
    return Params(method, resolved_device(str(recipe["train.device"])))


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    return [Shard("soup", 0, len(ingredients(inputs)))]


def _compatible(paths: Sequence[Any]) -> tuple[dict[str, Any], str]:
    """Configuration and digest of the start that all ingredients share.

    Raises
    ------
    Conflict
        Two of them differ in architecture, start or the records they were trained on.
    """
    from stages.train.state import read_metadata

    found = [read_metadata(path) for path in paths]
    check_alike(found, [f"ingredient {i} ({path})" for i, path in enumerate(paths)])
    return found[0]["config"], str(found[0]["init_digest"])


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stages.soup.average import greedy, uniform
    from stages.soup.memory import Peak
    from stages.train.evaluate import evaluate, open_steps, settings
    from stages.train.model import build_model
    from stages.train.state import read_state, state_digest, write_state

    roles = ingredients(inputs)
    paths = [inputs[role].path("model.safetensors") for role in roles]
    config, init_digest = _compatible(paths)
    wanted = METHODS if params.method == "auto" else tuple(dict.fromkeys(("best", params.method)))
    evaluations = len(paths) + ("uniform" in wanted) + (len(paths) - 1 if "greedy" in wanted else 0)
    model, done = build_model(config).to(params.device), 0
    scores: dict[str, Score] = {}  # by digest of the weights: equal candidates are evaluated once
    steps = open_steps(inputs["valid"], model, shuffle=False, device=params.device)

    def load(i: int) -> dict[str, Any]:
        return read_state(paths[i])[0]

    def score(state: Mapping[str, Any], text: str) -> Score:
        nonlocal done
        key = state_digest(state)
        if key not in scores:
            model.load_state_dict(state)
            scores[key] = evaluate(model, steps)
        done += 1
        writer.progress(done, max(done, evaluations), f"{text} valid {100 * scores[key].accuracy:.2f} %")
        return scores[key]

    methods: dict[str, dict[str, Any]] = {}
    files: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}
    with settings(writer.threads):
        started = time.perf_counter()
        with Peak() as ranked:
            single = [score(load(i), f"ingredient {i}") for i in range(len(paths))]
        if not single[0].labelled:
            raise BadInput(
                "valid split: expected labelled nodes to choose a soup on, found none",
                fix="label some of its nodes, or change the split",
            )
        order = sorted(range(len(paths)), key=lambda i: single[i].rank, reverse=True)
        ranking = time.perf_counter() - started
        for name in wanted:
            started = time.perf_counter()
            with Peak(0 if name == "uniform" else ranked.bytes) as peak:
                if name == "best":
                    state, members = load(order[0]), order[:1]
                elif name == "uniform":
                    state, members = uniform(load, range(len(paths))), list(range(len(paths)))
                else:
                    state, members = greedy(
                        load, order, single[order[0]].accuracy, lambda s: score(s, "greedy").accuracy
                    )
                found = score(state, name)
            methods[name] = {"valid_accuracy": found.accuracy, "valid_loss": found.loss, "members": members}
            # Uniform needs no ranking; its figure is the average and one evaluation.
            seconds[name] = time.perf_counter() - started + (0.0 if name == "uniform" else ranking)
            peaks[name] = peak.bytes
            metadata = {"config": config, "init_digest": init_digest, "method": name, **methods[name]}
            files[name] = writer.path(f"soup-{name}.safetensors")
            write_state(files[name], state, metadata)
    # Accuracy alone decides, and max() keeps the first of equals: the simpler method.
    chosen = max(wanted, key=lambda name: methods[name]["valid_accuracy"]) if params.method == "auto" else params.method
    state, metadata = read_state(files[chosen])
    write_state(writer.path("chosen.safetensors"), state, metadata)
    writer.note("seconds", seconds)
    writer.note("peak_bytes", peaks)
    return {
        "chosen": chosen,
        "methods": methods,
        "ingredients": [{"valid_accuracy": s.accuracy, "valid_loss": s.loss} for s in single],
        "labelled": single[0].labelled,
        "init_digest": init_digest,
        "num_parameters": sum(values.numel() for values in state.values()),
    }


def _finish(params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    return dict(shards["soup"].facts)


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    valid = facts["valid"]
    roles = ingredients(facts)
    weights = 4 * max((int(facts[role].get("num_parameters", 0)) for role in roles), default=0)
    hidden = max((int(facts[role].get("hidden", _HIDDEN)) for role in roles), default=_HIDDEN)
    floats = max((int(facts[role].get("edge_floats", 0)) for role in roles), default=0)
    step = step_bytes(hidden, valid, edge_floats=floats)
    reads = (2 * len(roles) + 1) * int(valid["bytes"]) + 3 * len(roles) * weights
    return Cost(reads, (len(METHODS) + 1) * weights, TORCH_BYTES + step + 8 * weights)


STAGE = Stage(
    name="soup",
    version=1,
    exact=False,
    params=Params,
    roles=("valid", "ingredient*"),
    reads=("soup.method", "soup.holdout", "train.device"),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
)
