"""Describes `soup`: the methods, what is refused, and which soup is chosen on the validation
records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.soup.compatibility import check_alike
from stockpot.stages.soup.planning import METHODS, PLANNING
from stockpot.stages.soup.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer, added
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.ingredient import count, ingredients
from stockpot.stages.train.ingredient import roles as trainings
from stockpot.stages.train.train_params import checked_holdout
from stockpot.stages.train.training_cost import TORCH_BYTES, step_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stockpot.stages.loader.steps import Steps
    from stockpot.stages.step import Step
    from stockpot.stages.train.holdout import Outputs

__all__ = ["STAGE", "Params"]
_AUTO = {"published": {"epochs": 25, "rate": 10.0}, "partition": {"epochs": 50, "rate": 1.0}}
"""Their authors' settings for GraphSAGE on ogbn-products; they tuned them for each model and data
set."""
KEEP_BYTES = 1 << 28
"""Most bytes of prepared validation records kept for the next pass, fewer in less memory; the rest
is read again."""
_CALIBRATION = 16  # training records on which a soup's batch norms are measured
_HIDDEN, _LAYERS = 1024, 3  # reckoned with until an ingredient says its own
_SAMPLED = 1024  # as `stockpot.stages.soup.ranking.SAMPLE`


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    method : "auto", what is best on validation, or one of `METHODS`. "best" is made in any case.
    device : where candidates are evaluated; averages are made on the CPU.
    holdout : share of the validation outputs that training did not look at; above 0, soups are made
        and compared on these alone.
    epochs, rate, period : of `published` and `partition`, see `stages.soup.published.SgdParams`; 0
        for other methods.
    parts, drawn : of `partition`; 0 for other methods.
    """

    method: str
    device: str = added("cpu")
    holdout: float = added(0.0)
    epochs: int = added(0)
    rate: float = added(0.0)
    period: int = added(0)
    parts: int = added(0)
    drawn: int = added(0)


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    method, holdout = str(recipe["soup.method"]), float(recipe["soup.holdout"])
    if method not in ("auto", *METHODS):
        raise BadInput(
            f"soup.method: expected auto, {', '.join(METHODS)}, found {method!r}",
            fix="--set soup.method=auto",
        )
    schedule = _schedule(method, recipe)
    return Params(
        method, resolved_device(str(recipe["train.device"])), checked_holdout(holdout), **schedule
    )


def _schedule(method: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What `published` and `partition` are run with; nothing for other methods, whose keys it is no
    part of.
    """
    get = {name: recipe[f"soup.{name}"] for name in ("epochs", "rate", "period", "parts", "drawn")}
    auto = _AUTO.get(method, _AUTO["published"])
    get |= {name: auto[name] for name in auto if get[name] == "auto"}
    if get["drawn"] > get["parts"]:
        raise BadInput(
            f"soup.drawn: expected at most soup.parts ({get['parts']}), found {get['drawn']}",
            fix=f"--set soup.drawn={get['parts']}",
        )
    read = {"published": ("epochs", "rate", "period"), "partition": tuple(get)}.get(method, ())
    return {name: float(get[name]) if name == "rate" else int(get[name]) for name in read}


def _compatible(paths: Sequence[Any]) -> tuple[dict[str, Any], str, list[str]]:
    """Configuration and digest of the start that all ingredients share, and how errors call each.

    Raises
    ------
    Conflict
        Two of them differ in architecture, start or the records they were trained on.
    """
    from stockpot.stages.train.state import read_metadata

    found = [read_metadata(path) for path in paths]
    labels = [
        f"ingredient {i} ({m.get('file', path)})"
        for i, (m, path) in enumerate(zip(found, paths, strict=True))
    ]
    check_alike(found, labels)
    return found[0]["config"], str(found[0]["init_digest"]), labels


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.loader.options import Delivery, Schedule
    from stockpot.stages.soup.calibrate import batch_norms
    from stockpot.stages.soup.cross_fit import cook
    from stockpot.stages.soup.kept_batches import Batches
    from stockpot.stages.soup.published import SgdParams
    from stockpot.stages.soup.scorer import Scorer
    from stockpot.stages.soup.stack import Stack
    from stockpot.stages.train.evaluate import open_steps, settings
    from stockpot.stages.train.holdout import Outputs
    from stockpot.stages.train.model import build_model
    from stockpot.stages.train.state import read_state, write_state

    paths = [one.path for one in ingredients(inputs)]
    config, init_digest, labels = _compatible(paths)
    model = build_model(config).to(params.device)
    stack = Stack([read_state(path)[0] for path in paths], model, labels)
    steps: Steps | Outputs = open_steps(
        inputs["valid"],
        model,
        Schedule(shuffle=False),
        Delivery(device=params.device),
        training=True,
    )
    if params.holdout:
        steps = Outputs(steps, params.holdout, held=True)

    if batch_norms(model) and "train" not in inputs:
        raise BadInput(
            "soup: the model has batch norms, whose statistics are measured anew on training "
            "records: expected a "
            "packed train split beside valid, found none",
            fix="--batches runs/NAME, of a run that packed train",
        )

    def calibration() -> Iterator[Step]:
        some = open_steps(
            inputs["train"], model, Schedule(shuffle=False), Delivery(device=params.device)
        )
        return (some[i] for i in range(min(len(some), _CALIBRATION)))

    needed = _cost(params, {role: inputs[role].facts for role in inputs}).needed
    batches = Batches(model, steps, min(KEEP_BYTES, max(0, writer.memory_bytes - needed)))
    done, total = 0, len(batches) + 8

    def report(text: str) -> None:
        nonlocal done
        done += 1
        writer.progress(min(done, total), total, text)

    with settings(writer.threads):
        scorer = Scorer(model, stack, batches, calibration)
        set_by = {
            name: value
            for name in ("epochs", "rate", "period", "parts", "drawn")
            if (value := getattr(params, name))
        }
        cooked = cook(scorer, method=params.method, schedule=SgdParams(**set_by), report=report)
        for name, made in cooked.soups.items():
            scorer.put(made.alpha)
            found = cooked.facts["methods"][name]
            metadata = {"config": config, "init_digest": init_digest, "method": name, **found}
            state = stack.state(made.alpha, model)
            write_state(writer.path(f"soup-{name}.safetensors"), state, metadata)
            if name == cooked.chosen:
                write_state(writer.path("chosen.safetensors"), state, metadata)
    writer.note("seconds", cooked.seconds)
    writer.note("peak_bytes", cooked.peaks)
    writer.note("phases", cooked.phases)
    writer.note("remarks", cooked.remarks)
    parameters = sum(p.numel() for p in stack.parameters.values())
    return {**cooked.facts, "init_digest": init_digest, "num_parameters": parameters}


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    valid = facts["valid"]
    roles, models = trainings(facts), count(facts)
    weights = 4 * max((int(facts[role].get("num_parameters", 0)) for role in roles), default=0)
    hidden = max((int(facts[role].get("hidden", _HIDDEN)) for role in roles), default=_HIDDEN)
    floats = max((int(facts[role].get("edge_floats", 0)) for role in roles), default=0)
    layers = max((int(facts[role].get("layers", _LAYERS)) for role in roles), default=_LAYERS)
    step = step_bytes(hidden, valid, layers=layers, edge_floats=floats)
    kept = min(KEEP_BYTES, int(valid["records"]) * step_bytes(1, valid))
    logits = 2 * models * int(valid["num_classes"]) * (2 * _SAMPLED + 2 * int(valid["records"]))
    # Each pass reads what is not kept; every method weighs all ingredients some hundred times,
    # fitted thrice.
    reads = (4 * models + 1) * int(valid["bytes"]) + 300 * models * weights
    least = TORCH_BYTES + step + 3 * logits + 8 * weights
    return Cost(reads, (len(METHODS) + 1) * weights, least + kept, least)


STAGE = Stage(
    name="soup",
    version=7,
    exact=False,
    params=Params,
    roles=("train", "valid", "ingredient*"),
    reads=(
        "soup.method",
        "soup.holdout",
        "soup.epochs",
        "soup.rate",
        "soup.period",
        "soup.parts",
        "soup.drawn",
        "train.device",
    ),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
