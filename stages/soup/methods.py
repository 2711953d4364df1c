"""Every method's soup of the same ingredients, fitted to one part of the validation records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.soup.learned import convex_start, learn, learn_signed, portions
from stages.soup.published import learn_published
from stages.soup.simple import gis_grid, gis_search, greedy
from stages.soup.stack import GRANULARITIES, groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from stages.soup.batches import Parts
    from stages.soup.ranking import Ranking
    from stages.soup.scorer import Scorer
    from stages.soup.soupable import Barrier

__all__ = ["AUTO", "BY_GRADIENT", "LEARNED", "METHODS", "Made", "Methods"]

METHODS = ("best", "uniform", "greedy", "gis", "learned", "signed", "grid", "published", "partition")
"""From the simplest on: a tie on the select part goes to the simpler. Each is a method of `Methods`."""
AUTO = METHODS[:6]
"""What "auto" tries; the others are GIS, LS and PLS as published, for comparison."""
LEARNED = METHODS[3:]
"""They need soupable ingredients and a divided validation split."""
BY_GRADIENT = ("learned", "signed", "published", "partition")
RACE = 1000  # labelled outputs of the fit part on which searches run
PORTION = 512  # labelled outputs of a gradient step, at least
CALIBRATE_EVERY = 10  # gradient steps between two measurements of batch norms' statistics
RATE, PERIOD = 10.0, 4  # of LS and PLS; the authors tuned both for each data set: these are near their GraphSAGE's
LS_EPOCHS, PLS_EPOCHS, SHARE = 25, 50, 4  # an epoch of PLS sees one of SHARE records


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


class Methods:
    """What is fitted, and to what: a method of METHODS makes its soup from the fit part of the validation records.

    Attributes
    ----------
    order : ingredients, the best on the fit part first.
    members : those that are learned on, in this order; all, unless `keep` says otherwise.
    race : records of the fit part, a few, on which searches run.
    """

    def __init__(self, scorer: Scorer, ranking: Ranking, parts: Parts, seed: int) -> None:
        self.scorer, self.ranking, self.parts, self.seed = scorer, ranking, parts, seed
        self.stack, self.n = scorer.stack, len(scorer.stack)
        self.labelled = ranking.labelled
        self.race: list[int] = next(portions(self.labelled, parts.fit, RACE, seed))
        for i in range(self.n):
            for part in (parts.fit, parts.select, self.race):
                scorer.remember(self.stack.pick(i), part, ranking.of(i, part))
        self.order = sorted(range(self.n), key=lambda i: ranking.of(i, parts.fit).rank, reverse=True)
        self.members = self.order
        self.made: dict[str, Made] = {}
        self._start: NDArray[np.float64] | None = None

    def keep(self, soupable: Sequence[Barrier]) -> None:
        """Learn on the ingredients alone that share a basin."""
        self.members = [i for i in self.order if soupable[i].soupable]

    def make(self, name: str) -> Made:
        """The soup of a method by its name."""
        work: Callable[[], Made] = getattr(self, name)
        self.made[name] = work()
        return self.made[name]

    def _whole(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The table of one weight an ingredient."""
        return np.tile(weights, (len(self.stack.names), 1))

    def _rank(self, weights: NDArray[np.float64]) -> tuple[float, float]:
        return self.scorer.outcome(self._whole(weights), self.parts.fit).rank

    def best(self) -> Made:
        return Made(self.stack.pick(self.order[0]))

    def _member(self) -> Made:
        return Made(self.stack.pick(self.members[0]))

    def uniform(self) -> Made:
        return Made(self.stack.blend(range(self.n)))

    def greedy(self) -> Made:
        return Made(self._whole(greedy(self.order, self.n, self._rank)[0]))

    def gis(self) -> Made:
        def loss(weights: NDArray[np.float64]) -> float:
            return self.scorer.outcome(self._whole(weights), self.race).loss

        return Made(self._whole(gis_search(self.members, self.n, loss, self._rank)[0]))

    def grid(self) -> Made:
        return Made(self._whole(gis_grid(self.members, self.n, self._rank)[0]))

    def start(self) -> NDArray[np.float64]:
        """Where gradients begin, f8[T, N]: the best on a few records of what costs next to nothing to propose.

        The convex weights are right for the logits; whether the soup they make is, only the soup tells.
        """
        if self._start is None:
            even = np.zeros(self.n)
            even[self.members] = 1 / len(self.members)
            best = np.zeros(self.n)
            best[self.members[0]] = 1.0
            convex = np.zeros(self.n)
            logits = self.ranking.logits(self.members, self.parts.fit)
            y = torch.cat([self.ranking.labels[r] for r in self.parts.fit])
            convex[self.members] = convex_start(logits, y, self._prior())
            proposed = [self._whole(w) for w in (even, convex, 0.9 * best + 0.1 * even)]
            if "greedy" in self.made and set(np.flatnonzero(self.made["greedy"].alpha[0])) <= set(self.members):
                proposed.append(self.made["greedy"].alpha)
            self._start = min(proposed, key=lambda a: self.scorer.outcome(a, self.race).loss)
        return self._start

    def _prior(self) -> float:
        """One free weight an ingredient, for as many outputs as there are to fit it to."""
        return len(self.members) / max(1, sum(self.labelled[r] for r in self.parts.fit))

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
            return self._member()
        loss = self.scorer.outcome(alpha, self.parts.select).loss
        draws = self._draws()
        for granularity in GRANULARITIES:
            of = groups(self.stack.names, granularity)[1]
            found = self._wide(learn(alpha[:, self.members], of, self._gradient(), draws, prior=self._prior()))
            now = self.scorer.outcome(found, self.parts.select).loss
            if not now < loss:
                break
            alpha, loss, reached = found, now, granularity
        return Made(alpha, reached)

    def signed(self) -> Made:
        if len(self.members) == 1:
            return self._member()
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
        draw = np.random.default_rng(self.seed)
        records = self.parts.fit
        size = max(1, len(records) // SHARE)
        draws = [[records[i] for i in draw.choice(len(records), size, replace=False)] for _ in range(PLS_EPOCHS)]
        return self._as_published(draws)

    def published(self) -> Made:
        """LS: each epoch one step on all records."""
        return self._as_published([list(self.parts.fit)] * LS_EPOCHS)

    def _as_published(self, draws: Sequence[list[int]]) -> Made:
        if len(self.members) == 1:
            return self._member()

        def gradient(alpha: NDArray[np.float64], beta: float, records: Any) -> tuple[float, NDArray[np.float64], float]:
            loss, d, by_beta = self.scorer.gradient(
                self._wide(alpha), records, members=self.members, scale=beta, calibrated=True
            )
            return loss, d[:, self.members], by_beta

        shape = (len(self.stack.names), len(self.members))
        alpha = learn_published(shape, gradient, draws, rate=RATE, period=PERIOD, seed=self.seed)
        return Made(self._wide(alpha), "tensor")
