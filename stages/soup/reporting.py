"""What soup says of a run: every method and the mean of all predictions, and where a soup gains
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import NOTICEABLE, Block
from stockpot.stages.soup.planning import METHODS
from stockpot.stages.soup.sections import soup_sections, souped_of
from stockpot.stages.stage import Reporting
from stockpot.stages.train.reporting import results_on_test

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


SHARED_START = "--set train.warmup=10 --set train.schedule=constant --set train.vary=2"


def _summary(view: View) -> Mapping[str, Any]:
    soup = view.built.get("soup")
    if soup is None:
        return {}
    tested = results_on_test(view)
    seconds, peaks = soup.note("seconds") or {}, soup.note("peak_bytes") or {}
    methods, ensemble = soup.facts.get("methods", {}), soup.facts.get("ensemble")
    figures = {
        "chosen": soup.facts.get("chosen"),
        "chosen_by": soup.facts.get("chosen_by"),
        "methods": {
            name: {
                "valid_accuracy": methods[name].get("valid_accuracy"),
                "cross_fitted_accuracy": methods[name].get("cross_fitted_accuracy"),
                "test_accuracy": tested.get(name),
                "same_as": methods[name].get("same_as"),
                "seconds": seconds.get(name),
                "peak_bytes": peaks.get(name),
                "members": methods[name].get("members"),
            }
            for name in sorted(methods, key=_rank)
        },
        "ensemble": None
        if ensemble is None
        else {**ensemble, "test_accuracy": tested.get("ensemble")},
    }
    return {"soup": figures}


def _rank(method: str) -> tuple[int, str]:
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    souped = souped_of(list(view.built.values()))
    if souped is not None:
        yield from (Block("Soups", part) for part in soup_sections(souped))


def _remarks(view: View) -> Iterator[str]:
    yield from _gains_nothing(view)
    yield from _behind_barriers(view)
    yield from _fell_back(view)


def _gains_nothing(view: View) -> Iterator[str]:
    """Several models were trained, and one alone is what ships; or a soup that was asked for is
    worse than one.
    """
    facts = view.facts("soup")
    methods: Mapping[str, Any] = facts.get("methods") or {}
    chosen, best = methods.get(str(facts.get("chosen"))), methods.get("best")
    trained = models_of(view)
    if trained < 2 or view.values["soup.method"] == "best" or chosen is None or best is None:
        return
    gain = _judged(chosen) - _judged(best)
    if view.values["soup.method"] != "auto" and gain < 0:
        yield (
            f"the soup that was asked for, {facts['chosen']}, is {-100 * gain:.2f} points below "
            f"the best single model "
            f"on validation; fix: --set soup.method=auto, which keeps the better one"
        )
    elif facts["chosen"] == "best" or gain <= 0:
        mend = _mend(
            view, "a longer train.warmup, or a higher train.lr after it", "a higher train.lr"
        )
        yield (
            f"no soup of {trained} models is better than the best of them "
            f"on validation: "
            f"{_why_no_gain(facts)}; fix: {mend}, or --set train.ingredients=1"
        )


def models_of(view: View) -> int:
    """Models that the recipe trains: as many as it names, of a tail those that were kept."""
    asked = view.values["train.ingredients"]
    return len(view.facts("train:0").get("models") or ()) if asked == "tail" else int(asked)


def _mend(view: View, warmed: str, of_tail: str) -> str:
    """What makes ingredients soupable, by what they share."""
    if view.values["train.ingredients"] == "tail":
        return of_tail
    return warmed if view.values["train.warmup"] else SHARED_START


def _judged(method: Mapping[str, Any]) -> float:
    """The accuracy a method is chosen by: cross-fitted, where its artifact says so."""
    return float(method.get("cross_fitted_accuracy", method.get("valid_accuracy")) or 0.0)


def _why_no_gain(facts: Mapping[str, Any]) -> str:
    methods = facts["methods"]
    behind = [
        i
        for i in facts.get("ingredients") or []
        if i.get("barrier") and not i["barrier"]["soupable"]
    ]
    drop = _judged(methods["best"]) - _judged(methods["uniform"]) if "uniform" in methods else 0.0
    if behind or drop > NOTICEABLE:
        return f"they drifted apart in training, their mean is {100 * drop:.1f} points below"
    return "they are too much alike to add to each other"


def _behind_barriers(view: View) -> Iterator[str]:
    """Between an ingredient and the best one the loss is higher than at either."""
    measured = [
        i["barrier"] for i in view.facts("soup").get("ingredients") or [] if i.get("barrier")
    ]
    behind = [barrier for barrier in measured if not barrier["soupable"]]
    if behind:
        highest = max(barrier["height"] for barrier in behind)
        mend = _mend(view, "a longer train.warmup, or a smaller train.vary", "a lower train.lr")
        yield (
            f"{len(behind)} of {len(measured)} ingredients lie behind a barrier (highest "
            f"{highest:.2f} nats) and are "
            f"left out of learned soups: they drifted apart in training; fix: {mend}"
        )


def _fell_back(view: View) -> Iterator[str]:
    facts = view.facts("soup")
    if (
        view.values["soup.method"] != "auto"
        or models_of(view) < 2
        or (facts.get("parts") or {}).get("divided", True)
    ):
        return
    records, labelled = view.facts("pack:valid").get("records"), facts.get("labelled")
    yield (
        f"soup.method auto: the validation split ({labelled} labelled outputs in {records} "
        f"records) is too small to "
        "make soups on one half and compare them on the other: those that are learned are left "
        "out; fix: a larger "
        "dataset.split.valid, or smaller records by batches.outputs"
    )


REPORTING = Reporting(_summary, report=_report, remarks=_remarks)
