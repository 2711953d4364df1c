"""Soups are made on one part of the validation records, compared on the other, and one is chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.soup.batches import divide
from stages.soup.honest import choose, n_eff
from stages.soup.memory import Peak
from stages.soup.methods import AUTO, BY_GRADIENT, LEARNED, Made, Methods
from stages.soup.ranking import Ranking
from stages.soup.scorer import Outcome
from stages.soup.stack import groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.soup.scorer import Scorer

__all__ = ["Cooked", "cook"]

N_EFF_LOW = 1.5
_LINES = 5  # ingredients whose line to the soup is drawn


@dataclass
class Cooked:
    """What was made and found. `seconds`, `peaks` and `phases` may differ by run, `facts` do not."""

    chosen: str
    soups: dict[str, Made]
    facts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def cook(
    scorer: Scorer, *, method: str = "auto", seed: int = 0, report: Callable[[str], None] = lambda _: None
) -> Cooked:
    """Make the soups, compare them with the best ingredient, choose.

    Parameters
    ----------
    scorer : model, ingredients and validation records.
    method : "auto", or one of `METHODS` to be made beside the best ingredient and chosen whatever it scores.
    report : called with a few words as work goes on.

    Raises
    ------
    BadInput
        No output has a label.
    """
    out = Cooked("best", {}, {})

    def timed(name: str, work: Callable[[], Any]) -> tuple[Any, float, int]:
        report(name)
        started = time.perf_counter()
        with Peak() as peak:
            found = work()
        return found, time.perf_counter() - started, peak.bytes

    ranking, rank_s, rank_bytes = timed("rank", lambda: Ranking(scorer, report))
    parts = divide(ranking.labelled, seed)
    kitchen = Methods(scorer, ranking, parts, seed)
    wanted = _wanted(method, kitchen, out.remarks)
    filter_s, filter_bytes = 0.0, 0
    if any(name in LEARNED for name in wanted):
        _, filter_s, filter_bytes = timed("filter", kitchen.filter)
        wanted = _soupable(method, wanted, kitchen, out.remarks)
    outcomes: dict[str, Outcome] = {}
    for name in wanted:
        work: Callable[[], Made] = getattr(kitchen, name)

        def make(work: Callable[[], Made] = work, name: str = name) -> Outcome:
            kitchen.made[name] = work()
            return scorer.outcome(kitchen.made[name].alpha, parts.select)

        outcomes[name], own_s, own_bytes = timed(name, make)
        # Uniform needs no ranking: its figure is the average and one evaluation.
        out.seconds[name] = own_s + (0 if name == "uniform" else rank_s) + (filter_s if name in LEARNED else 0)
        out.peaks[name] = max(own_bytes, 0 if name == "uniform" else rank_bytes, filter_bytes)
    best, compared = choose(outcomes)
    out.chosen, out.soups = (best if method == "auto" else method), kitchen.made
    out.phases = {"rank": rank_s, "filter": filter_s}
    methods = {}
    for name in wanted:
        found = compared[name]
        methods[name] = _described(kitchen, name) | {
            "gain": found.gain,
            "gain_error": found.error,
            "p_value": found.p_value,
            "loss_gain": found.loss_gain,
            "loss_error": found.loss_error,
        }
        if name in BY_GRADIENT and methods[name]["n_eff"] < N_EFF_LOW:
            out.remarks.append(
                f"{name}: its weights count for {methods[name]['n_eff']:.2f} ingredients: nearly one alone"
            )
    landscape, out.phases["landscape"], _ = timed("landscape", lambda: _landscape(kitchen, out.chosen))
    out.facts = {
        "chosen": out.chosen,
        "methods": methods,
        "parts": {
            "divided": parts.divided,
            **{
                name: {"records": len(part), "labelled": sum(ranking.labelled[r] for r in part)}
                for name, part in (("fit", parts.fit), ("select", parts.select))
            },
        },
        "ingredients": [
            {
                "valid_accuracy": whole.accuracy,
                "valid_loss": whole.loss,
                "fit_accuracy": ranking.of(i, parts.fit).accuracy,
                "select_accuracy": ranking.of(i, parts.select).accuracy,
                "barrier": kitchen.barriers[i].to_json() if kitchen.barriers else None,
            }
            for i, whole in enumerate(kitchen.single)
        ],
        "ensemble": {"valid_accuracy": Outcome.joined(ranking.ensemble[r] for r in parts.select).accuracy},
        "landscape": landscape,
        "labelled": sum(ranking.labelled),
        "remarks": out.remarks,
    }
    return out


def _wanted(method: str, kitchen: Methods, remarks: list[str]) -> list[str]:
    """Methods to make; words where validation is too small to fit anything and judge it."""
    wanted = list(AUTO) if method == "auto" else list(dict.fromkeys(("best", method)))
    if kitchen.n == 1:
        remarks.append("one ingredient: every soup of it is itself")
        return [name for name in wanted if name not in LEARNED or name == method]
    if not kitchen.parts.divided:
        few = f"{sum(kitchen.labelled)} labelled outputs in {len(kitchen.labelled)} records"
        remarks.append(
            f"the validation split is too small to divide ({few}): soups are compared on what they were fitted to"
        )
        if method == "auto":
            remarks[-1] += f"; {', '.join(n for n in wanted if n in LEARNED)} are left out"
            return [name for name in wanted if name not in LEARNED]
    return wanted


def _soupable(method: str, wanted: list[str], kitchen: Methods, remarks: list[str]) -> list[str]:
    """The same without the methods that have nothing to learn on, and words on what lies behind a barrier."""
    out = kitchen.n - len(kitchen.members)
    if not out:
        return wanted
    highest = max(b.height for b in kitchen.barriers)
    remarks.append(
        f"{out} of {kitchen.n} ingredients lie behind a barrier to the best one (highest {highest:.2f} nats) and are "
        "left out of what is learned: they drifted apart"
    )
    if len(kitchen.members) > 1 or method != "auto":
        return wanted
    return [name for name in wanted if name not in LEARNED]


def _described(kitchen: Methods, name: str) -> dict[str, Any]:
    """Facts about one soup; its accuracy is that on the select part."""
    made = kitchen.made[name]
    select, fit = (kitchen.scorer.outcome(made.alpha, part) for part in (kitchen.parts.select, kitchen.parts.fit))
    labels, of = groups(kitchen.stack.names, made.granularity)
    weights = np.stack([made.alpha[of == g][0] for g in range(len(labels))])
    return {
        "valid_accuracy": select.accuracy,
        "valid_loss": select.loss,
        "fit_accuracy": fit.accuracy,
        "fit_loss": fit.loss,
        "members": [int(i) for i in np.flatnonzero(np.abs(weights).max(0) > 1e-2 / kitchen.n)],
        "n_eff": float(n_eff(weights).mean()),
        "alpha": {"granularity": made.granularity, "groups": labels, "weights": weights.tolist()},
    }


def _landscape(kitchen: Methods, chosen: str) -> list[dict[str, Any]]:
    """Loss and accuracy along lines from the soup to the best ingredients, the best first, on a few records.

    Where the best ingredient alone was chosen, the mean of all stands for the soup and shows why.
    """
    start = chosen if chosen != "best" or "uniform" not in kitchen.made else "uniform"
    soup, points = kitchen.made[start].alpha, (0.0, 0.25, 0.5, 0.75, 1.0)
    ends = [(f"ingredient {i}", kitchen.stack.pick(i)) for i in kitchen.order[:_LINES]]
    lines = []
    for label, end in ends:
        found = [kitchen.scorer.outcome((1 - at) * soup + at * end, kitchen.race) for at in points]
        lines.append({
            "from": start,
            "to": label,
            "at": list(points),
            "loss": [o.loss for o in found],
            "accuracy": [o.accuracy for o in found],
        })  # fmt: skip
    return lines
