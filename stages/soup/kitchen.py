"""Soups are made on each half of the validation records, compared on the other, and one is chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.soup.batches import Parts, divide
from stages.soup.honest import choose, n_eff, paired
from stages.soup.memory import Peak, anonymous_bytes
from stages.soup.methods import AUTO, BY_GRADIENT, LEARNED, Made, Methods
from stages.soup.ranking import Ranking
from stages.soup.scorer import Outcome
from stages.soup.soupable import Barrier, barriers
from stages.soup.stack import GRANULARITIES, groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

    Validation is cross-fitted: a method makes a soup on each half, which is scored on the other, and the mean of both
    tables is the soup; where that mean is less accurate on validation than either (two single models of different
    basins), the better of the two is. Halves too small to judge on are one: then soups are scored on what they were
    fitted to.

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
    began = anonymous_bytes()

    def timed(name: str, work: Callable[[], Any]) -> tuple[Any, float, int]:
        report(name)
        started = time.perf_counter()
        with Peak(began) as peak:
            found = work()
        return found, time.perf_counter() - started, peak.bytes

    ranking, rank_s, rank_bytes = timed("rank", lambda: Ranking(scorer, report))
    parts, stack = divide(ranking.labelled, seed), scorer.stack
    every = tuple(range(len(ranking.labelled)))
    single = [ranking.of(i, every) for i in range(len(stack))]
    for i, outcome in enumerate(single):
        scorer.remember(stack.pick(i), every, outcome)
    order = sorted(range(len(stack)), key=lambda i: single[i].rank, reverse=True)
    halves = [parts, Parts(parts.select, parts.fit, divided=True)] if parts.divided else [parts]
    folds = [Methods(scorer, ranking, half, seed) for half in halves]
    wanted = _wanted(method, ranking, parts, out.remarks)
    filter_s, found_barriers = 0.0, list[Barrier]()
    if any(name in LEARNED for name in wanted):
        found_barriers, filter_s, _ = timed("filter", lambda: barriers(scorer, order[0], folds[0].race))
        for fold in folds:
            fold.keep(found_barriers)
        wanted = _soupable(method, wanted, found_barriers, out.remarks)
    scored: dict[str, _Scored] = {}
    for name in wanted:

        def make(name: str = name) -> _Scored:
            made = [fold.make(name) for fold in folds]
            unseen = [scorer.outcome(m.alpha, f.parts.select) for m, f in zip(made, folds, strict=True)]
            seen = [scorer.outcome(m.alpha, f.parts.fit) for m, f in zip(made, folds, strict=True)]
            table = stack.pick(order[0]) if name == "best" else sum(m.alpha for m in made) / len(made)
            soup = scorer.outcome(np.asarray(table), every)
            if name != "best" and len(made) > 1:
                each = [Outcome.joined(pair) for pair in zip(unseen, seen, strict=True)]
                better = max(range(len(made)), key=lambda i: each[i].rank)
                if each[better].accuracy > soup.accuracy:
                    table, soup = made[better].alpha, each[better]
            out.soups[name] = Made(np.asarray(table), max((m.granularity for m in made), key=GRANULARITIES.index))
            return _Scored(Outcome.joined(unseen), Outcome.joined(seen), soup)

        scored[name], own_s, own_bytes = timed(name, make)
        # Uniform needs no ranking: its figure is the average and one evaluation.
        out.seconds[name] = own_s + (0 if name == "uniform" else rank_s) + (filter_s if name in LEARNED else 0)
        out.peaks[name] = max(own_bytes, 0 if name == "uniform" else rank_bytes)
    # A mean of two soups is a third: it must itself hold what the two promise.
    held = [name for name in wanted if scored[name].soup.accuracy >= scored["best"].soup.accuracy]
    best = choose({name: scored[name].select for name in held})
    out.chosen = best if method == "auto" else method
    out.phases = {"rank": rank_s, "filter": filter_s}
    methods = {}
    for name in wanted:
        methods[name] = _described(stack.names, out.soups[name], scored[name], scored["best"])
        if name in BY_GRADIENT and methods[name]["n_eff"] < N_EFF_LOW:
            out.remarks.append(
                f"{name}: its weights count for {methods[name]['n_eff']:.2f} ingredients: nearly one alone"
            )
    landscape, out.phases["landscape"], _ = timed(
        "landscape", lambda: _landscape(scorer, out.chosen, out.soups, order[:_LINES], folds[0].race)
    )
    out.facts = {
        "chosen": out.chosen,
        "methods": methods,
        "parts": {
            "divided": parts.divided,
            "labelled": [sum(ranking.labelled[r] for r in half.select) for half in halves],
            "records": [len(half.select) for half in halves],
        },
        "ingredients": [
            {
                "valid_accuracy": whole.accuracy,
                "valid_loss": whole.loss,
                "barrier": found_barriers[i].to_json() if found_barriers else None,
            }
            for i, whole in enumerate(single)
        ],
        "ensemble": {"valid_accuracy": Outcome.joined(ranking.ensemble).accuracy},
        "landscape": landscape,
        "labelled": sum(ranking.labelled),
        "remarks": out.remarks,
    }
    return out


@dataclass(frozen=True)
class _Scored:
    """Of one method: its soups of halves on the halves they have not seen, on those they have, and its soup on all."""

    select: Outcome
    fit: Outcome
    soup: Outcome


def _wanted(method: str, ranking: Ranking, parts: Parts, remarks: list[str]) -> list[str]:
    """Methods to make; words where validation is too small to fit anything and judge it."""
    wanted = list(AUTO) if method == "auto" else list(dict.fromkeys(("best", method)))
    if ranking.count == 1:
        remarks.append("one ingredient: every soup of it is itself")
        return [name for name in wanted if name not in LEARNED or name == method]
    if not parts.divided:
        few = f"{sum(ranking.labelled)} labelled outputs in {len(ranking.labelled)} records"
        remarks.append(
            f"the validation split is too small to divide ({few}): soups are compared on what they were fitted to"
        )
        if method == "auto":
            remarks[-1] += f"; {', '.join(n for n in wanted if n in LEARNED)} are left out"
            return [name for name in wanted if name not in LEARNED]
    return wanted


def _soupable(method: str, wanted: list[str], found: Sequence[Barrier], remarks: list[str]) -> list[str]:
    """The same without the methods that have nothing to learn on, and words on what lies behind a barrier."""
    out = sum(not b.soupable for b in found)
    if not out:
        return wanted
    highest = max(b.height for b in found)
    remarks.append(
        f"{out} of {len(found)} ingredients lie behind a barrier to the best one (highest {highest:.2f} nats) and are "
        "left out of what is learned: they drifted apart"
    )
    if len(found) - out > 1 or method != "auto":
        return wanted
    return [name for name in wanted if name not in LEARNED]


def _described(names: Sequence[str], made: Made, scored: _Scored, best: _Scored) -> dict[str, Any]:
    """Facts about one soup. `valid_accuracy` is by halves; `soup_accuracy`, of the soup itself, on what it has seen."""
    labels, of = groups(names, made.granularity)
    weights = np.stack([made.alpha[of == g][0] for g in range(len(labels))])
    found = paired(best.select, scored.select)
    return {
        "valid_accuracy": scored.select.accuracy,
        "valid_loss": scored.select.loss,
        "fit_accuracy": scored.fit.accuracy,
        "fit_loss": scored.fit.loss,
        "soup_accuracy": scored.soup.accuracy,
        "gain": found.gain,
        "gain_error": found.error,
        "p_value": found.p_value,
        "loss_gain": found.loss_gain,
        "loss_error": found.loss_error,
        "members": [int(i) for i in np.flatnonzero(np.abs(weights).max(0) > 1e-2 / weights.shape[1])],
        "n_eff": float(n_eff(weights).mean()),
        "alpha": {"granularity": made.granularity, "groups": labels, "weights": weights.tolist()},
    }


def _landscape(
    scorer: Scorer, chosen: str, soups: Mapping[str, Made], ends: Sequence[int], records: Sequence[int]
) -> list[dict[str, Any]]:
    """Loss and accuracy along lines from the soup to some ingredients, on a few records.

    Where the best ingredient alone was chosen, the mean of all stands for the soup and shows why.
    """
    start = chosen if chosen != "best" or "uniform" not in soups else "uniform"
    soup, points = soups[start].alpha, (0.0, 0.25, 0.5, 0.75, 1.0)
    lines = []
    for i in ends:
        end = scorer.stack.pick(i)
        found = [scorer.outcome((1 - at) * soup + at * end, records) for at in points]
        lines.append({
            "from": start,
            "to": f"ingredient {i}",
            "at": list(points),
            "loss": [o.loss for o in found],
            "accuracy": [o.accuracy for o in found],
        })  # fmt: skip
    return lines
