"""Methods are judged on outputs their soups have not seen, one is chosen, and its soup of all
outputs is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.peak_memory import PeakMemory, anonymous_bytes
from stockpot.stages.soup.kept_batches import divide
from stockpot.stages.soup.methods import AUTO, BY_GRADIENT, LEARNED, UNFITTED, Methods
from stockpot.stages.soup.paired_test import Choice, choose, n_eff, paired
from stockpot.stages.soup.ranking import Ranking
from stockpot.stages.soup.scorer import Outcome
from stockpot.stages.soup.stack import groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stockpot.stages.soup.kept_batches import Parts
    from stockpot.stages.soup.methods import Made
    from stockpot.stages.soup.published import SgdParams
    from stockpot.stages.soup.scorer import Scorer

__all__ = ["Cooked", "cook"]

N_EFF_LOW = 1.5
_LINES = 5  # ingredients whose line to the soup is drawn


@dataclass
class Cooked:
    """What was made and found. `seconds`, `peaks` and `phases` may differ by run, `facts` do
    not.
    """

    chosen: str
    soups: dict[str, Made]
    facts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def cook(
    scorer: Scorer,
    *,
    method: str = "auto",
    seed: int = 0,
    schedule: SgdParams | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Cooked:
    """Make the soups, compare them with the best ingredient, choose.

    A method is judged by cross-fitting: it makes a soup on each half of the validation outputs,
    which is scored on the other. Its own soup, the one that is written, is made in the same way on
    all of them. Halves too small to judge on are one: then soups are scored on what they were
    fitted to, and nothing fitted may be chosen.

    Parameters
    ----------
    scorer : model, ingredients and validation records.
    method : "auto", or one of `METHODS` to be made beside the best ingredient and chosen whatever
        it scores.
    schedule : of `published` and `partition`.
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
        with PeakMemory(began) as peak:
            result = work()
        return result, time.perf_counter() - started, peak.peak_bytes

    ranking, rank_s, rank_bytes = timed("rank", lambda: Ranking(scorer, report))
    parts = divide(ranking.labelled, seed)
    fits = _Fits(scorer, ranking, parts, seed, schedule)
    wanted = _wanted(method, ranking, parts, out.remarks)
    filter_s, filtered = 0.0, any(name in LEARNED for name in wanted)
    if filtered:
        _, filter_s, _ = timed("filter", lambda: [fit.barriers for fit in fits.every])
        wanted = _soupable(method, wanted, fits, out.remarks)
    scored: dict[str, _Scored] = {}
    for name in wanted:
        (out.soups[name], scored[name]), own_s, own_bytes = timed(name, partial(fits.made, name))
        # Uniform needs no ranking: its figure is the average and one evaluation.
        out.seconds[name] = (
            own_s + (0 if name == "uniform" else rank_s) + (filter_s if name in LEARNED else 0)
        )
        out.peaks[name] = max(own_bytes, 0 if name == "uniform" else rank_bytes)
    choice = Choice(method, {}, 0)
    if method == "auto":
        choice = choose({name: scored[name].judged for name in wanted}, _eligible(scored, parts))
    out.chosen = choice.chosen
    out.phases = {"rank": rank_s, "filter": filter_s}
    methods = {}
    for name in wanted:
        corrected = choice.corrected.get(name)
        methods[name] = _described(
            scorer.stack.names, out.soups[name], scored[name], scored["best"], corrected
        )
        methods[name]["same_as"] = _same_as(name, out.soups)
        if name in BY_GRADIENT and methods[name]["n_eff"] < N_EFF_LOW:
            out.remarks.append(
                f"{name}: its weights count for {methods[name]['n_eff']:.2f} ingredients: nearly "
                f"one alone"
            )
    ends = fits.whole.order[:_LINES]
    landscape, out.phases["landscape"], _ = timed(
        "landscape", lambda: _landscape(scorer, out.chosen, out.soups, ends, fits.whole.race)
    )
    out.facts = {
        "chosen": out.chosen,
        "chosen_by": "recipe"
        if method != "auto"
        else "validation"
        if ranking.count > 1
        else "nothing",
        "looks": choice.looks,
        "methods": methods,
        "parts": {
            "divided": parts.divided,
            "labelled": [sum(ranking.labelled[r] for r in half) for half in fits.judges],
            "records": [len(half) for half in fits.judges],
        },
        "ingredients": fits.ingredients(filtered=filtered),
        "ensemble": {
            "valid_accuracy": Outcome.joined(ranking.ensemble).accuracy,
            "models": ranking.count,
        },
        "landscape": landscape,
        "labelled": sum(ranking.labelled),
        "remarks": out.remarks,
    }
    return out


@dataclass(frozen=True)
class _Scored:
    """Of one method.

    Attributes
    ----------
    judged, fit : its soups of halves on the halves they have not seen, and on those they were
        fitted to.
    own : the soup made on all of validation, on all of it.
    """

    judged: Outcome
    fit: Outcome
    own: Outcome


class _Fits:
    """Every method fitted three times: to each half of validation, judged on the other, and to all
    of it.

    Attributes
    ----------
    halves, judges : methods on each half, and the records of the other.
    whole : methods on all records; the one of `halves` where validation is not divided.
    """

    def __init__(
        self, scorer: Scorer, ranking: Ranking, parts: Parts, seed: int, schedule: SgdParams | None
    ) -> None:
        self.scorer, self.ranking = scorer, ranking
        sides = [(parts.fit, parts.select), (parts.select, parts.fit)][: 2 if parts.divided else 1]
        self.halves = [Methods(scorer, ranking, fit, seed, schedule) for fit, _ in sides]
        self.judges = [judge for _, judge in sides]
        records = range(len(ranking.labelled))
        self.whole = (
            Methods(scorer, ranking, records, seed, schedule) if parts.divided else self.halves[0]
        )

    @property
    def every(self) -> list[Methods]:
        """Each once."""
        return self.halves if self.whole is self.halves[0] else [*self.halves, self.whole]

    def made(self, name: str) -> tuple[Made, _Scored]:
        """A method's own soup, and how it and its soups of halves do."""
        soups = [half.make(name) for half in self.halves]
        own = soups[0] if self.whole is self.halves[0] else self.whole.make(name)
        outcome = self.scorer.outcome
        pairs = list(zip(soups, self.halves, self.judges, strict=True))
        return own, _Scored(
            judged=Outcome.joined(outcome(soup.alpha, judge) for soup, _, judge in pairs),
            fit=Outcome.joined(outcome(soup.alpha, half.records) for soup, half, _ in pairs),
            own=outcome(own.alpha, self.whole.records),
        )

    def ingredients(self, *, filtered: bool) -> list[dict[str, Any]]:
        """Facts about the single models, on all of validation; barriers where they were looked
        for.
        """
        out = []
        for i in range(self.ranking.count):
            single = self.ranking.of(i, self.whole.records)
            barrier = self.whole.barriers[i].to_json() if filtered else None
            out.append(
                {"valid_accuracy": single.accuracy, "valid_loss": single.loss, "barrier": barrier}
            )
        return out


def _eligible(scored: Mapping[str, _Scored], parts: Parts) -> list[str]:
    """Methods that may be chosen.

    A soup that is less accurate than the best ingredient on the outputs both were fitted to is none
    of them; nor is, where validation is not divided, one that is judged by what it was fitted to.
    """
    best = scored["best"].own.accuracy
    held = [name for name, one in scored.items() if one.own.accuracy >= best]
    return held if parts.divided else [name for name in held if name in UNFITTED]


def _same_as(name: str, soups: Mapping[str, Made]) -> str | None:
    """What has the same weights: an ingredient, "ingredient:I", or a simpler soup; None where
    nothing has.
    """
    alpha = soups[name].alpha
    for i in range(alpha.shape[1]):
        if np.array_equal(alpha[:, i], np.ones(len(alpha))) and np.count_nonzero(alpha) == len(
            alpha
        ):
            return f"ingredient:{i}"
    for earlier, made in soups.items():
        if earlier == name:
            return None
        if np.array_equal(made.alpha, alpha):
            return earlier
    return None


def _wanted(method: str, ranking: Ranking, parts: Parts, remarks: list[str]) -> list[str]:
    """Methods to make; words where validation is too small to fit anything and judge it."""
    wanted = list(AUTO) if method == "auto" else list(dict.fromkeys(("best", method)))
    if ranking.count == 1:
        remarks.append("one ingredient: every soup of it is itself")
        return [name for name in wanted if name not in LEARNED or name == method]
    if not parts.divided:
        few = f"{sum(ranking.labelled)} labelled outputs in {len(ranking.labelled)} records"
        remarks.append(
            f"the validation split is too small to divide ({few}): soups are compared on what they "
            f"were fitted to"
        )
        if method == "auto":
            remarks[-1] += f"; {', '.join(n for n in wanted if n in LEARNED)} are left out"
            return [name for name in wanted if name not in LEARNED]
    return wanted


def _soupable(method: str, wanted: list[str], fits: _Fits, remarks: list[str]) -> list[str]:
    """The same without the methods that have nothing to learn on, and words on what lies behind a
    barrier.
    """
    found = fits.whole.barriers
    if any(not b.soupable for b in found):
        out, highest = sum(not b.soupable for b in found), max(b.height for b in found)
        remarks.append(
            f"{out} of {len(found)} ingredients lie behind a barrier to the best one (highest "
            f"{highest:.2f} nats) and "
            "are left out of what is learned: they drifted apart"
        )
    if method != "auto" or any(len(fit.members) > 1 for fit in fits.every):
        return wanted
    return [name for name in wanted if name not in LEARNED]


def _described(
    names: Sequence[str], made: Made, scored: _Scored, best: _Scored, corrected: float | None
) -> dict[str, Any]:
    """Facts about one method.

    `valid_accuracy` is that of its own soup, on all of validation, which it was fitted to;
    `cross_fitted_accuracy` that of its soups of halves on the other halves, by which it is
    compared.
    """
    labels, of = groups(names, made.granularity)
    weights = np.stack([made.alpha[of == g][0] for g in range(len(labels))])
    found = paired(best.judged, scored.judged)
    return {
        "valid_accuracy": scored.own.accuracy,
        "valid_loss": scored.own.loss,
        "cross_fitted_accuracy": scored.judged.accuracy,
        "cross_fitted_loss": scored.judged.loss,
        "fit_accuracy": scored.fit.accuracy,
        "fit_loss": scored.fit.loss,
        "gain": found.gain,
        "gain_error": found.error,
        "p_value": found.p_value,
        "loss_gain": found.loss_gain,
        "loss_error": found.loss_error,
        "loss_p_value": found.loss_p_value,
        "corrected_p_value": corrected,
        "members": [
            int(i) for i in np.flatnonzero(np.abs(weights).max(0) > 1e-2 / weights.shape[1])
        ],
        "n_eff": float(n_eff(weights).mean()),
        "alpha": {"granularity": made.granularity, "groups": labels, "weights": weights.tolist()},
    }


def _landscape(
    scorer: Scorer,
    chosen: str,
    soups: Mapping[str, Made],
    ends: Sequence[int],
    records: Sequence[int],
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
