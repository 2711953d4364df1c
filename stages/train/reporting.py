"""What train says of a run: each ingredient, its learning curve, and what its training noted."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block
from stockpot.stages.stage import Reporting
from stockpot.stages.train.ingredient import models
from stockpot.stages.train.learning import Curve, curve, learning_curves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stockpot.stages.built import Built, View
    from stockpot.stages.stage import Reader

__all__ = ["REPORTING"]


def results_on_test(view: View) -> Mapping[str, Any]:
    """Test accuracy of every candidate; none where inference was asked for other nodes than the
    test split.
    """
    if view.values["infer.split"] != "test":
        return {}
    results: Mapping[str, Any] = view.facts("infer").get("results") or {}
    return results


def _summary(view: View) -> Mapping[str, Any]:
    trained = view.of("train")
    if not trained:
        return {}
    tested, souped = results_on_test(view), view.facts("soup").get("ingredients")
    valid = [one["valid_accuracy"] for one in souped or ()] or [
        one.get("valid_accuracy") for b in trained for one in models(b.facts)
    ]
    ingredients = [
        {**said, "valid_accuracy": accuracy, "test_accuracy": tested.get(name)}
        for (name, said), accuracy in zip(_singles(trained), valid, strict=True)
    ]
    return {"train": {"ingredients": ingredients}}


def _singles(trained: Sequence[Built]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model's role and what is said of it. One of a tail has an epoch, the epochs trained up
    to it, and the seconds since the model before it, so that those of all sum up to the training's.
    """
    for b in trained:
        seconds = b.note("seconds") or b.manifest["seconds"]
        every = models(b.facts)
        shares = [1.0]
        if epochs := [one["epoch"] for one in every if "epoch" in one]:
            started = int(b.manifest["params"].get("warmup", 0)) - 1
            spans = [later - earlier for earlier, later in pairwise([started, *epochs])]
            shares = [span / sum(spans) for span in spans]
        for i, (one, share) in enumerate(zip(every, shares, strict=True)):
            own = {"epoch": one["epoch"]} if "epoch" in one else _best(b)
            said = {
                "seed": b.facts.get("seed"),
                "key": b.key,
                "epochs": own["epoch"] + 1 if "epoch" in own else b.facts.get("epochs"),
                "seconds": seconds * share,
                "seconds_per_epoch": b.note("seconds_per_epoch"),
                **own,
            }
            yield f"ingredient:{i if 'epoch' in own else b.node.instance['index']}", said


def _best(b: Built) -> dict[str, int]:
    """The best epoch on validation and the last one, both counted from 0, the warm-up's among them;
    nothing of artifacts that do not say.
    """
    best, own = b.facts.get("best_epoch"), b.facts.get("epochs")
    if best is None or own is None:
        return {}
    warmup = int((b.manifest.get("params") or {}).get("warmup", 0))
    return {"best_epoch": best, "last_epoch": warmup + own - 1}


def read_curve(reader: Reader, node: str) -> Curve | None:
    """The learning curve in an artifact of train or warmup; None where it has none."""
    return (
        curve(reader.path("history.json"), reader.facts, node)
        if reader.has("history.json")
        else None
    )


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    """Curves of the ingredients and of their warm-up, the best of them marked."""
    found = [view.read[b.node.id] for b in view.of("warmup", "train") if b.node.id in view.read]
    yield Block("Learning curves", learning_curves(found))


def _remarks(view: View) -> Iterator[str]:
    yield from _tail_settled(view)
    yield from _device_fell_back(view)
    yield from _said_in_training(view)


def _tail_settled(view: View) -> Iterator[str]:
    """Models of a tail are alike where the rate falls to nothing."""
    schedule = view.values["train.schedule"]
    if view.values["train.ingredients"] == "tail" and schedule != "constant" and view.of("train"):
        yield (
            f"train.ingredients tail: with train.schedule {schedule} the rate falls in the last "
            f"epochs, so that their models are nearly one and their soups gain little; fix: "
            f"--set train.schedule=constant"
        )


def _device_fell_back(view: View) -> Iterator[str]:
    """GPUs were there and were not used."""
    trained = view.built.get("train:0")
    found = trained.note("gpus") if trained is not None else None
    if (
        trained is None
        or not found
        or view.values["train.device"] != "auto"
        or trained.manifest["params"]["device"] != "cpu"
    ):
        return
    if not found["usable"]:
        yield (
            f"train.device auto: trained on the CPU, though this machine has {found['present']} "
            f"GPU(s): its torch is "
            "built without CUDA; fix: install a CUDA build of torch, or --set train.device=cpu"
        )
    elif view.values["train.ranks"] > found["present"]:
        yield (
            f"train.device auto: trained on the CPU: {view.values['train.ranks']} ranks take a GPU "
            f"each, "
            f"and this machine has {found['present']}; fix: "
            f"--set train.ranks={found['present']}, or --set train.device=cpu"
        )


def _said_in_training(view: View) -> Iterator[str]:
    """What trainings noted, each once, with the ingredients that did."""
    who: dict[str, list[str]] = {}
    for b in view.of("train", "warmup"):
        for line in b.note("remarks") or []:
            who.setdefault(line, []).append(b.node.id)
    yield from (f"{', '.join(nodes)}: {line}" for line, nodes in who.items())


REPORTING = Reporting(_summary, read_curve, _report, _remarks)
