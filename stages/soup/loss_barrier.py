"""An ingredient that lies behind a barrier is left out before anything is learned on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.stages.soup.scorer import Scorer

__all__ = ["Barrier", "barriers"]

SLACK = 0.01
"""Nats of cross-entropy that the midpoint may lie above the worse end: a few records' noise."""


@dataclass(frozen=True)
class Barrier:
    """Of the line between an ingredient and the best one: losses at its ends and middle, on the
    same records.

    `height` is the loss in the middle above the mean of the ends; `soupable` says that it is at
    most the worse end's.
    """

    ends: tuple[float, float]
    middle: float

    @property
    def height(self) -> float:
        return self.middle - sum(self.ends) / 2

    @property
    def soupable(self) -> bool:
        return self.middle <= max(self.ends) + SLACK  # False where it is not a number

    def to_json(self) -> dict[str, Any]:
        return {
            "height": self.height,
            "middle_loss": self.middle,
            "loss": self.ends[0],
            "soupable": self.soupable,
        }


def barriers(scorer: Scorer, best: int, records: Sequence[int]) -> list[Barrier]:
    """The line from every ingredient to the best one, which stands for the basin: a mean of several
    is in none.

    Similarity predicts what can be souped, and is moderately transitive (OpenReview 59weCTbw1Q).
    One short pass an ingredient.
    """
    stack = scorer.stack
    end = scorer.outcome(stack.pick(best), records).loss
    out = []
    for i in range(len(stack)):
        own = scorer.outcome(stack.pick(i), records).loss
        middle = end if i == best else scorer.outcome(stack.blend((i, best)), records).loss
        out.append(Barrier((own, end), middle))
    return out
