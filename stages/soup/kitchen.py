"""Every method's soup of the same ingredients, made on one part of the validation records, compared on the other."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.soup.batches import Parts, divide
from stages.soup.honest import choose, n_eff
from stages.soup.learned import convex_start, learn, learn_signed, portions
from stages.soup.memory import Peak
from stages.soup.published import learn_published
from stages.soup.scorer import Outcome
from stages.soup.simple import gis_search, greedy
from stages.soup.soupable import Barrier, barriers
from stages.soup.stack import GRANULARITIES, groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from stages.soup.scorer import Scorer

__all__ = ["AUTO", "METHODS", "Cooked", "Made", "cook"]

METHODS = ("best", "uniform", "greedy", "gis", "learned", "signed", "partition")
"""From the simplest on: a tie on the select part goes to the simpler."""
AUTO = METHODS[:-1]
"""What "auto" tries; `partition` is PLS as published, for comparison."""
_LEARNED = ("gis", "learned", "signed", "partition")  # they need soupable ingredients and a divided validation split
SAMPLE = 1024  # labelled outputs whose logits are kept for the convex start
RACE = 1000  # labelled outputs of the fit part on which searches run
PORTION = 512  # labelled outputs of a gradient step, at least
CALIBRATE_EVERY = 10  # gradient steps between two measurements of batch norms' statistics
PLS = {"epochs": 50, "rate": 10.0, "period": 4, "share": 4}  # near the authors' SAGE settings; an epoch sees K / share
N_EFF_LOW = 1.5
_LINES = 5  # ingredients whose line to the soup is drawn


@dataclass(frozen=True)
class Made:
    """One method's soup.

    Attributes
    ----------
    alpha : f8[T, N].
    granularity : of `stages.soup.stack.GRANULARITIES`.
    """

    alpha: NDArray[np.float64]
    granularity: str = "global"


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


class _Ranking:
    """One pass over the records, all ingredients on each before the next is read."""

    def __init__(self, scorer: Scorer, progress: Callable[[str], None]) -> None:
        stack, records = scorer.stack, len(scorer.batches)
        alphas = [stack.pick(i) for i in range(len(stack))]
        self.by_record: list[list[Outcome]] = []  # [record][ingredient]
        self.ensemble: list[Outcome] = []  # of the mean of all ingredients' probabilities, by record
        self.logits: list[torch.Tensor] = []  # f2[N, v, C] of some labelled outputs, by record
        self.labels: list[torch.Tensor] = []
        quota = -(-2 * SAMPLE // max(1, records))
        for r in range(records):
            outcomes, kept = [], []
            total: torch.Tensor | None = None
            for alpha in alphas:
                scorer.put(alpha)
                logits, y = scorer.logits(r)
                outcomes.append(Outcome.of(logits, y))
                rows = (y >= 0).nonzero()[:quota, 0]
                kept.append(logits[rows].half().cpu())
                total = logits.softmax(1) if total is None else total.add_(logits.softmax(1))
            assert total is not None
            self.by_record.append(outcomes)
            self.ensemble.append(Outcome.of(total.log(), y))
            self.logits.append(torch.stack(kept))
            self.labels.append(y[rows].cpu())
            progress(f"record {r + 1} of {records}")

    @property
    def labelled(self) -> list[int]:
        return [outcomes[0].correct.size for outcomes in self.by_record]

    def of(self, i: int, records: Sequence[int]) -> Outcome:
        """Ingredient `i` on some records."""
        return Outcome.joined(self.by_record[r][i] for r in records)


class _Kitchen:
    def __init__(self, scorer: Scorer, ranking: _Ranking, parts: Parts, seed: int) -> None:
        self.scorer, self.ranking, self.parts, self.seed = scorer, ranking, parts, seed
        self.stack, self.n = scorer.stack, len(scorer.stack)
        self.labelled = ranking.labelled
        every = range(len(self.labelled))
        for i in range(self.n):
            for part in (tuple(every), parts.fit, parts.select):
                scorer.remember(self.stack.pick(i), part, ranking.of(i, part))
        self.single = [ranking.of(i, every) for i in range(self.n)]
        self.order = sorted(range(self.n), key=lambda i: self.single[i].rank, reverse=True)
        self.race: list[int] = next(portions(self.labelled, parts.fit, RACE, seed))
        self.members = [self.order[0]]
        self.barriers: list[Barrier] = []
        self.made: dict[str, Made] = {}
        self._start: NDArray[np.float64] | None = None

    def filter(self) -> None:
        """Find the ingredients that share a basin with the best one."""
        if not self.barriers:
            for i in range(self.n):
                self.scorer.remember(self.stack.pick(i), self.race, self.ranking.of(i, self.race))
            self.barriers = barriers(self.scorer, self.order[0], self.race)
            self.members = [i for i in self.order if self.barriers[i].soupable]

    def _whole(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The table of one weight an ingredient."""
        return np.tile(weights, (len(self.stack.names), 1))

    def _rank(self, weights: NDArray[np.float64]) -> tuple[float, float]:
        return self.scorer.outcome(self._whole(weights), self.parts.fit).rank

    def best(self) -> Made:
        return Made(self.stack.pick(self.order[0]))

    def uniform(self) -> Made:
        return Made(self.stack.blend(range(self.n)))

    def greedy(self) -> Made:
        return Made(self._whole(greedy(self.order, self.n, self._rank)[0]))

    def gis(self) -> Made:
        def loss(weights: NDArray[np.float64]) -> float:
            return self.scorer.outcome(self._whole(weights), self.race).loss

        return Made(self._whole(gis_search(self.members, self.n, loss, self._rank)[0]))

    def start(self) -> NDArray[np.float64]:
        """Where gradients begin, f8[T, N]: the best on a few records of what costs next to nothing to propose.

        The convex weights are right for the logits; whether the soup they make is, only the soup tells.
        """
        if self._start is None:
            even = np.zeros(self.n)
            even[self.members] = 1 / len(self.members)
            best = np.zeros(self.n)
            best[self.order[0]] = 1.0
            convex = np.zeros(self.n)
            logits = torch.cat([self.ranking.logits[r][self.members] for r in self.parts.fit], 1)
            convex[self.members] = convex_start(logits, torch.cat([self.ranking.labels[r] for r in self.parts.fit]))
            proposed = [self._whole(w) for w in (even, convex, 0.9 * best + 0.1 * even)]
            if "greedy" in self.made and set(np.flatnonzero(self.made["greedy"].alpha[0])) <= set(self.members):
                proposed.append(self.made["greedy"].alpha)
            self._start = min(proposed, key=lambda a: self.scorer.outcome(a, self.race).loss)
        return self._start

    def _gradient(self) -> Callable[[NDArray[np.float64], Sequence[int]], NDArray[np.float64]]:
        """By the members' columns alone, f8[T, M]; batch norms are measured anew now and then."""
        done = 0

        def gradient(alpha: NDArray[np.float64], records: Sequence[int]) -> NDArray[np.float64]:
            nonlocal done
            anew = done % CALIBRATE_EVERY == 0
            done += 1
            found = self.scorer.gradient(self._wide(alpha), records, members=self.members, calibrated=anew)[1]
            return found[:, self.members]

        return gradient

    def _wide(self, alpha: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((alpha.shape[0], self.n))
        out[:, self.members] = alpha
        return out

    def _draws(self) -> Iterator[list[int]]:
        return portions(self.labelled, self.parts.fit, PORTION, self.seed)

    def learned(self) -> Made:
        """The ladder: one weight a model, a layer, a tensor; a rung is climbed while the select part's loss falls."""
        alpha, reached = self.start(), GRANULARITIES[0]
        if len(self.members) == 1:
            return self.best()
        loss = self.scorer.outcome(alpha, self.parts.select).loss
        draws = self._draws()
        for granularity in GRANULARITIES:
            of = groups(self.stack.names, granularity)[1]
            found = self._wide(learn(alpha[:, self.members], of, self._gradient(), draws))
            now = self.scorer.outcome(found, self.parts.select).loss
            if not now < loss:
                break
            alpha, loss, reached = found, now, granularity
        return Made(alpha, reached)

    def signed(self) -> Made:
        if len(self.members) == 1:
            return self.best()
        of = groups(self.stack.names, "layer")[1]
        alpha = learn_signed(
            self.start()[:, self.members],
            of,
            range(len(self.members)),
            self._gradient(),
            lambda a: self.stack.distances(self._wide(a), of)[:, self.members],
            self._draws(),
        )
        return Made(self._wide(alpha), "layer")

    def partition(self) -> Made:
        """PLS with records for parts: each epoch one step on a random draw of them."""
        if len(self.members) == 1:
            return self.best()
        draw = np.random.default_rng(self.seed)
        records = self.parts.fit
        size = max(1, len(records) // int(PLS["share"]))
        draws = [
            [records[i] for i in draw.choice(len(records), size, replace=False)] for _ in range(int(PLS["epochs"]))
        ]

        def gradient(alpha: NDArray[np.float64], beta: float, records: Any) -> tuple[float, NDArray[np.float64], float]:
            loss, d, by_beta = self.scorer.gradient(
                self._wide(alpha), records, members=self.members, scale=beta, calibrated=True
            )
            return loss, d[:, self.members], by_beta

        shape = (len(self.stack.names), len(self.members))
        alpha = learn_published(shape, gradient, draws, rate=PLS["rate"], period=int(PLS["period"]), seed=self.seed)
        return Made(self._wide(alpha), "tensor")

    def describe(self, name: str) -> dict[str, Any]:
        """Facts about one soup; its accuracy is that on the select part."""
        made = self.made[name]
        select, fit = (self.scorer.outcome(made.alpha, part) for part in (self.parts.select, self.parts.fit))
        labels, of = groups(self.stack.names, made.granularity)
        weights = np.stack([made.alpha[of == g][0] for g in range(len(labels))])
        return {
            "valid_accuracy": select.accuracy,
            "valid_loss": select.loss,
            "fit_accuracy": fit.accuracy,
            "fit_loss": fit.loss,
            "members": [int(i) for i in np.flatnonzero(np.abs(weights).max(0) > 1e-2 / self.n)],
            "n_eff": float(n_eff(weights).mean()),
            "alpha": {"granularity": made.granularity, "groups": labels, "weights": weights.tolist()},
        }

    def landscape(self, chosen: str) -> list[dict[str, Any]]:
        """Loss and accuracy along lines from the soup to the best ingredients, the best first, on a few records.

        Where the best ingredient alone was chosen, the mean of all stands for the soup and shows why.
        """
        start = chosen if chosen != "best" or "uniform" not in self.made else "uniform"
        soup, points = self.made[start].alpha, (0.0, 0.25, 0.5, 0.75, 1.0)
        ends = [(f"ingredient {i}", self.stack.pick(i)) for i in self.order[:_LINES]]
        lines = []
        for label, end in ends:
            found = [self.scorer.outcome((1 - at) * soup + at * end, self.race) for at in points]
            lines.append({
                "from": start,
                "to": label,
                "at": list(points),
                "loss": [o.loss for o in found],
                "accuracy": [o.accuracy for o in found],
            })  # fmt: skip
        return lines


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

    ranking, rank_s, rank_bytes = timed("rank", lambda: _Ranking(scorer, report))
    parts = divide(ranking.labelled, seed)
    kitchen = _Kitchen(scorer, ranking, parts, seed)
    wanted = _wanted(method, kitchen, out.remarks)
    filter_s, filter_bytes = 0.0, 0
    if any(name in _LEARNED for name in wanted):
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
        out.seconds[name] = own_s + (0 if name == "uniform" else rank_s) + (filter_s if name in _LEARNED else 0)
        out.peaks[name] = max(own_bytes, 0 if name == "uniform" else rank_bytes, filter_bytes)
    best, compared = choose(outcomes)
    out.chosen, out.soups = (best if method == "auto" else method), kitchen.made
    out.phases = {"rank": rank_s, "filter": filter_s}
    methods = {}
    for name in wanted:
        found = compared[name]
        methods[name] = kitchen.describe(name) | {
            "gain": found.gain,
            "gain_error": found.error,
            "p_value": found.p_value,
            "loss_gain": found.loss_gain,
            "loss_error": found.loss_error,
        }
        if name in ("learned", "signed", "partition") and methods[name]["n_eff"] < N_EFF_LOW:
            out.remarks.append(
                f"{name}: its weights count for {methods[name]['n_eff']:.2f} ingredients: nearly one alone"
            )
    landscape, out.phases["landscape"], _ = timed("landscape", lambda: kitchen.landscape(out.chosen))
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


def _wanted(method: str, kitchen: _Kitchen, remarks: list[str]) -> list[str]:
    """Methods to make; words where validation is too small to fit anything and judge it."""
    wanted = list(AUTO) if method == "auto" else list(dict.fromkeys(("best", method)))
    if kitchen.n == 1:
        remarks.append("one ingredient: every soup of it is itself")
        return [name for name in wanted if name not in _LEARNED or name == method]
    if not kitchen.parts.divided:
        few = f"{sum(kitchen.labelled)} labelled outputs in {len(kitchen.labelled)} records"
        remarks.append(
            f"the validation split is too small to divide ({few}): soups are compared on what they were fitted to"
        )
        if method == "auto":
            remarks[-1] += f"; {', '.join(n for n in wanted if n in _LEARNED)} are left out"
            return [name for name in wanted if name not in _LEARNED]
    return wanted


def _soupable(method: str, wanted: list[str], kitchen: _Kitchen, remarks: list[str]) -> list[str]:
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
    return [name for name in wanted if name not in _LEARNED]
