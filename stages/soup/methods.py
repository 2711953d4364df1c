"""Every method's soup of the same ingredients, fitted to some validation records; no other record
is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.soup.kept_batches import divide
from stockpot.stages.soup.learned import convex_start, learn, learn_signed, portions
from stockpot.stages.soup.loss_barrier import Barrier, barriers
from stockpot.stages.soup.parts import record_parts
from stockpot.stages.soup.planning import METHODS
from stockpot.stages.soup.published import SgdParams, learn_published
from stockpot.stages.soup.simple import gis_grid, gis_search, greedy
from stockpot.stages.soup.stack import GRANULARITIES, groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.soup.ranking import Ranking
    from stockpot.stages.soup.scorer import Scorer

__all__ = ["AUTO", "BY_GRADIENT", "LEARNED", "UNFITTED", "Made", "Methods"]

AUTO = METHODS[:6]
"""What "auto" tries; the others are GIS, LS and PLS as published, for comparison."""
LEARNED = METHODS[3:]
"""They need soupable ingredients and a divided validation split."""
UNFITTED = METHODS[:2]
"""What stands as it is where validation cannot be divided; the other methods are judged by what
they were fitted to."""
BY_GRADIENT = ("learned", "signed", "published", "partition")
RACE = 1000  # labelled outputs on which searches run
PORTION = 512  # labelled outputs of a gradient step, at least
CALIBRATE_EVERY = 10  # gradient steps between two measurements of batch norms' statistics


@dataclass(frozen=True)
class Made:
    """One method's soup.

    Attributes
    ----------
    alpha : f8[T, N].
    granularity : of `stockpot.stages.soup.stack.GRANULARITIES`.
    """

    alpha: NDArray[np.float64]
    granularity: str = "global"


class Methods:
    """What is fitted, and to what: a method of METHODS makes its soup from `records`, and from
    nothing else.

    Order, barriers, starts, granularity and steps all come from these records, and no method reads
    what another one made: so a soup is the same whichever others are asked for.

    Parameters
    ----------
    records : of validation, by number.
    schedule : of `published` and `partition`.

    Attributes
    ----------
    order : ingredients, the best on the records first.
    race : some of the records, on which searches run.
    """

    def __init__(
        self,
        scorer: Scorer,
        ranking: Ranking,
        records: Sequence[int],
        seed: int,
        schedule: SgdParams | None = None,
    ) -> None:
        self.scorer, self.ranking, self.records, self.seed = scorer, ranking, list(records), seed
        self.schedule = SgdParams() if schedule is None else schedule
        self.stack, self.n = scorer.stack, len(scorer.stack)
        self.labelled = ranking.labelled
        self.race: list[int] = next(portions(self.labelled, self.records, RACE, seed))
        for i in range(self.n):
            for part in (self.records, self.race):
                scorer.remember(self.stack.pick(i), part, ranking.of(i, part))
        self.order = sorted(
            range(self.n), key=lambda i: ranking.of(i, self.records).rank, reverse=True
        )

    @cached_property
    def barriers(self) -> list[Barrier]:
        """Of the line from each ingredient to the best one on these records."""
        return barriers(self.scorer, self.order[0], self.race)

    @cached_property
    def members(self) -> list[int]:
        """Ingredients that share a basin with the best one, in `order`: what is learned on."""
        best = self.order[0]
        return [i for i in self.order if i == best or self.barriers[i].soupable]

    def make(self, name: str) -> Made:
        """The soup of a method by its name."""
        work: Callable[[], Made] = getattr(self, name)
        return work()

    def _whole(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The table of one weight an ingredient."""
        return np.tile(weights, (len(self.stack.names), 1))

    def _rank(self, weights: NDArray[np.float64]) -> tuple[float, float]:
        return self.scorer.outcome(self._whole(weights), self.records).rank

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

    @cached_property
    def start(self) -> NDArray[np.float64]:
        """Where gradients begin, f8[T, N]: the best on a few records of what costs next to nothing
        to propose.

        The convex weights are right for the logits; whether the soup they make is, only the soup
        tells.
        """
        even, best, convex = np.zeros((3, self.n))
        even[self.members] = 1 / len(self.members)
        best[self.members[0]] = 1.0
        logits = self.ranking.logits(self.members, self.records)
        y = torch.cat([self.ranking.labels[r] for r in self.records])
        convex[self.members] = convex_start(logits, y, self._prior())
        proposed = [self._whole(w) for w in (even, convex, 0.9 * best + 0.1 * even)]
        return min(proposed, key=lambda a: self.scorer.outcome(a, self.race).loss)

    def _prior(self) -> float:
        """One free weight an ingredient, for as many outputs as there are to fit it to."""
        return len(self.members) / max(1, sum(self.labelled[r] for r in self.records))

    def _gradient(self) -> Callable[[NDArray[np.float64], Sequence[int]], NDArray[np.float64]]:
        """By the members' columns alone, f8[T, M]; batch norms are measured anew now and then."""
        done = 0

        def gradient(alpha: NDArray[np.float64], records: Sequence[int]) -> NDArray[np.float64]:
            nonlocal done
            anew = done % CALIBRATE_EVERY == 0
            done += 1
            found = self.scorer.gradient(
                self._wide(alpha), records, members=self.members, calibrated=anew
            )[1]
            return found[:, self.members]

        return gradient

    def _wide(self, alpha: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((alpha.shape[0], self.n))
        out[:, self.members] = alpha
        return out

    def _draws(self) -> Iterator[list[int]]:
        return portions(self.labelled, self.records, PORTION, self.seed)

    def learned(self) -> Made:
        """One weight a model, a layer or a tensor, as `rung` says, learned on all of the
        records.
        """
        if len(self.members) == 1:
            return self._member()
        rung = self.rung
        return (
            Made(self.start, GRANULARITIES[0])
            if rung is None
            else Made(self.learned_by(rung), rung)
        )

    def learned_by(self, granularity: str) -> NDArray[np.float64]:
        """The table learned with one weight a group, f8[T, N]."""
        of = groups(self.stack.names, granularity)[1]
        alpha = self.start[:, self.members]
        return self._wide(learn(alpha, of, self._gradient(), self._draws(), prior=self._prior()))

    @cached_property
    def rung(self) -> str | None:
        """The granularity to learn by; None where no learned table is better than where it starts.

        The records are halved: tables are learned on one half, from the coarsest on, and the ladder
        is climbed while the loss on the other half falls. Too few records to halve carry one weight
        a model.
        """
        inner = divide(self.labelled, self.seed, self.records)
        if not inner.divided:
            return GRANULARITIES[0]
        half = Methods(self.scorer, self.ranking, inner.fit, self.seed)
        half.members = [i for i in half.order if i in set(self.members)]
        reached, least = None, self.scorer.outcome(half.start, inner.select).loss
        for granularity in GRANULARITIES:
            loss = self.scorer.outcome(half.learned_by(granularity), inner.select).loss
            if not loss < least:
                break
            reached, least = granularity, loss
        return reached

    def signed(self) -> Made:
        if len(self.members) == 1:
            return self._member()
        of = groups(self.stack.names, "layer")[1]
        alpha = learn_signed(
            self.start[:, self.members],
            of,
            range(len(self.members)),
            self._gradient(),
            lambda a: self.stack.distances(self._wide(a), of)[:, self.members],
            self._draws(),
        )
        return Made(self._wide(alpha), "layer")

    def partition(self) -> Made:
        """PLS with whole records for nodes: each epoch one step on `drawn` of `parts` groups of
        records.

        The groups are METIS', balanced by labelled outputs. Fewer records than parts are parts
        themselves, of which the same share is drawn.
        """
        plan, draw = self.schedule, np.random.default_rng(self.seed)
        ids = [self.scorer.batches[r].n_id.cpu().numpy() for r in self.records]
        part = record_parts(ids, [self.labelled[r] for r in self.records], plan.parts, self.seed)
        there = np.unique(part)  # METIS may leave parts empty
        size = max(1, round(plan.drawn * len(there) / plan.parts))
        seen = [set(draw.choice(there, size, replace=False).tolist()) for _ in range(plan.epochs)]
        return self._as_published(
            [[r for r, k in zip(self.records, part, strict=True) if k in some] for some in seen]
        )

    def published(self) -> Made:
        """LS: each epoch one step on all records."""
        return self._as_published([self.records] * self.schedule.epochs)

    def _as_published(self, draws: Sequence[list[int]]) -> Made:
        if len(self.members) == 1:
            return self._member()

        def gradient(
            alpha: NDArray[np.float64], beta: float, records: Any
        ) -> tuple[float, NDArray[np.float64], float]:
            loss, d, by_beta = self.scorer.gradient(
                self._wide(alpha), records, members=self.members, scale=beta, calibrated=True
            )
            return loss, d[:, self.members], by_beta

        shape, plan = (len(self.stack.names), len(self.members)), self.schedule
        alpha = learn_published(
            shape, gradient, draws, rate=plan.rate, period=plan.period, seed=self.seed
        )
        return Made(self._wide(alpha), "tensor")
