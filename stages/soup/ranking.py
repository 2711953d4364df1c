"""Validation records are read once to rank all ingredients; what that pass computes is kept for what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stages.soup.scorer import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stages.soup.scorer import Scorer

__all__ = ["Ranking"]

SAMPLE = 1024
"""Labelled outputs whose logits are kept for the convex start."""


class Ranking:
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
