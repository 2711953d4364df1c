"""A soup of models that exist already, by the same stage as a run's: nothing of a store or of the
models is changed.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.locate import opened
from stockpot.planning.budget import granted, measure, refuse
from stockpot.planning.recipe import from_tables
from stockpot.planning.registry import STAGES
from stockpot.souping import ingredients
from stockpot.souping.soup_outputs import soup_document, soup_page
from stockpot.stages.errors import BadInput
from stockpot.stages.soup.compatibility import check_alike
from stockpot.store.attempt import Attempt, Work
from stockpot.store.run_folder import dump, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stockpot.planning.budget import Budget
    from stockpot.planning.recipe import Recipe
    from stockpot.souping.ingredients import Ingredient
    from stockpot.stages.stage import Cost, Reader

__all__ = ["Asked", "make"]


@dataclass(frozen=True)
class Asked:
    """What the user wants souped.

    Attributes
    ----------
    where : paths of ingredients; see `stockpot.souping.ingredients`.
    batches : run folder, store or pack artifact whose validation records are read; None: the first
        run in `where`.
    factory : package.module:factory of models trained elsewhere.
    out : folder of what is written; None: beside the first path.
    overrides : "key=value" of [train] for a factory, [soup] and [resources].
    command : as the report says it.
    """

    where: Sequence[Path]
    batches: Path | None = None
    factory: str = ""
    out: Path | None = None
    overrides: Sequence[str] = ()
    command: str = ""


@dataclass(frozen=True)
class _Model:
    """An ingredient as the stage reads one: `facts` and the file."""

    file: Path
    facts: Mapping[str, Any]
    key: str = ""
    digest: str = ""

    def path(self, name: str) -> Path:
        assert name == "model.safetensors"
        return self.file


class _Kitchen(Attempt):
    """Where the stage writes; progress goes to the caller."""

    def __init__(self, work: Work, report: Callable[[int, int, str], None], **options: Any) -> None:
        super().__init__(work, "soup", **options)
        self._report = report

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Report progress of the soup."""
        self._report(done, total, text)


def make(asked: Asked, report: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Soup, test and write the models; return the document written as `soup.json`.

    Raises
    ------
    BadInput
        A path, an option or a file is not what it should be.
    Conflict
        Ingredients do not belong together, or are not of the factory's model.
    OverBudget
        The projected memory exceeds the budget.
    """
    found = ingredients.found(asked.where)
    packs, recipe = _packs(asked)
    out = asked.out if asked.out is not None else _beside(asked.where[0])
    scratch = out / ".work"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        found = _as_ours(found, asked, recipe, packs["valid"], scratch / "ingredients")
        facts, kitchen = _stage(found, recipe, packs, Work(scratch), report)
        scores = _tested(facts, found, kitchen.payload, packs.get("test"), recipe)
        words = check_alike([one.metadata for one in found], [one.label for one in found])
        document = soup_document(out, asked.command, found, facts, kitchen.notes, scores, words)
        _publish(kitchen.payload, out, document, found)
        write_atomically(
            out / "report.html", soup_page(document, facts, found, kitchen.notes, scores)
        )
        write_atomically(out / "soup.json", dump(document))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return document


def _beside(first: Path) -> Path:
    folder = first if first.is_dir() else first.parent
    return folder.with_name(f"{folder.absolute().name}-soup")


def _packs(asked: Asked) -> tuple[dict[str, Reader], Recipe]:
    """The packed splits there are, by name, and the recipe they were made by."""
    runs = [path for path in asked.where if (path / "run.json").exists()]
    where = asked.batches if asked.batches is not None else runs[0] if runs else None
    if where is None:
        raise BadInput(
            "soup: expected --batches with validation records, found none",
            fix="--batches runs/NAME",
        )
    valid = opened(where, "valid")
    packs = {"valid": valid.pack}
    for split in ("train", "test"):
        with suppress(
            BadInput
        ):  # train calibrates batch norms, test is for the report: neither is a must
            packs[split] = opened(where, split).pack
    return packs, from_tables(
        where.absolute().name, valid.recipe, asked.overrides, where=str(where)
    )


def _as_ours(
    found: Sequence[Ingredient], asked: Asked, recipe: Recipe, valid: Reader, folder: Path
) -> list[Ingredient]:
    """Files from elsewhere rewritten as stockpot's; every model takes the features the records
    have.
    """
    strange = [one for one in found if not one.own]
    if strange and not asked.factory:
        raise BadInput(
            f"soup: {strange[0].label}: a model trained elsewhere needs the factory that builds it",
            fix="--factory package.module:build",
        )
    if strange:
        from stockpot.stages.train.model import build_model
        from stockpot.stages.train.stage import STAGE
        from stockpot.stages.train.train_params import model_config, resolve

        values = {
            **recipe.values(),
            "train.model": asked.factory,
            "train.warmup": 0,
            "train.vary": 1.0,
            "index": 0,
        }
        params = resolve(
            {name: values[name] for name in (*STAGE.reads, "index")}, {"train": valid.facts}
        )
        config = model_config(params, valid.facts)
        model = build_model(config, params.seed)
        folder.mkdir(parents=True)
        found = [
            one
            if one.own
            else ingredients.adopt(one, model, config, folder / f"{i}{ingredients.SUFFIX}")
            for i, one in enumerate(found)
        ]
    for one in found:
        for name in ("num_features", "num_classes"):
            if one.metadata["config"][name] != valid.facts[name]:
                raise BadInput(
                    f"soup: {one.label} has {name} {one.metadata['config'][name]}, the validation "
                    f"records have "
                    f"{valid.facts[name]}",
                    fix="--batches of the data it was trained on",
                )
    return list(found)


def _stage(
    found: Sequence[Ingredient],
    recipe: Recipe,
    packs: Mapping[str, Reader],
    work: Work,
    report: Callable[[int, int, str], None],
) -> tuple[dict[str, Any], _Kitchen]:
    """Run stage `soup` here, as it runs in a run."""
    stage, values = STAGES["soup"], recipe.values()
    params = stage.resolve({name: values[name] for name in stage.reads}, {})
    inputs: dict[str, Any] = {role: packs[role] for role in stage.roles if role in packs}
    inputs |= {f"ingredient:{i}": _Model(one.path, _facts(one)) for i, one in enumerate(found)}
    cost: Cost = stage.cost(params, {role: reader.facts for role, reader in inputs.items()})
    budget: Budget = measure(recipe.resources)
    refuse(budget, [("soup", cost)])
    kitchen = _Kitchen(
        work,
        report,
        threads=min(budget.cores, _threads()),
        memory_bytes=granted(cost, budget.task_bytes),
    )
    (shard,) = stage.shards(params, inputs)
    return stage.run(params, inputs, shard, kitchen), kitchen


def _facts(one: Ingredient) -> dict[str, Any]:
    config = one.metadata["config"]
    sizes = {name: config[name] for name in ("hidden", "layers") if name in config}
    if "hops" in config:  # of sign, the maps of all hops side by side
        sizes["hidden"] *= int(config["hops"]) + 1
    counted = {
        name: one.metadata[name]
        for name in ("num_parameters", "edge_floats")
        if name in one.metadata
    }
    return {"num_parameters": one.path.stat().st_size // 4, **sizes, **counted}


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _tested(
    facts: Mapping[str, Any],
    found: Sequence[Ingredient],
    payload: Path,
    test: Reader | None,
    recipe: Recipe,
) -> dict[str, Any]:
    """Accuracy on the test records of every method and ingredient, and of their mean; nothing was
    chosen by it.
    """
    if test is None:
        return {}
    from stockpot.stages.infer.predict import predict
    from stockpot.stages.loader.options import Delivery, Schedule
    from stockpot.stages.train.devices import resolved_device
    from stockpot.stages.train.evaluate import open_steps, settings
    from stockpot.stages.train.model import load_model

    device = resolved_device(str(recipe.values()["train.device"]))
    files = {name: payload / f"soup-{name}.safetensors" for name in facts["methods"]}
    files |= {f"ingredient:{i}": one.path for i, one in enumerate(found)}
    models = {name: load_model(file).to(device) for name, file in files.items()}
    singles = [name for name in models if name.startswith("ingredient:")]
    with settings(_threads()):
        steps = open_steps(
            test, models[singles[0]], Schedule(shuffle=False), Delivery(device=device)
        )
        outputs, classes = int(test.facts["outputs"]), int(test.facts["num_classes"])
        together = dict.fromkeys(singles, 1) if len(singles) > 1 else None
        _, scores = predict(
            models, singles[0], steps, outputs, classes, lambda *_: None, None, together
        )
    labelled = scores[singles[0]].labelled
    return {"labelled": labelled} | {n: s.accuracy if labelled else None for n, s in scores.items()}


def _publish(
    payload: Path, out: Path, document: Mapping[str, Any], found: Sequence[Ingredient]
) -> None:
    """Move the models to their folder; the chosen one last, beside it its tensors under the user's
    own names.
    """
    for path in sorted(
        payload.glob(f"*{ingredients.SUFFIX}"), key=lambda p: p.name == "chosen.safetensors"
    ):
        path.replace(out / path.name)
    (out / "state.safetensors").unlink(missing_ok=True)
    if any("file" in one.metadata for one in found):
        from safetensors.torch import save_file

        from stockpot.stages.train.state import read_state

        state = read_state(out / "chosen.safetensors")[0]
        plain = {name.removeprefix("module."): values for name, values in state.items()}
        save_file(
            plain, out / "state.safetensors", {"soup": json.dumps({"method": document["chosen"]})}
        )
