"""Validation records are read once to rank all ingredients; what that pass computes is kept for
what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from stockpot.stages.soup.scorer import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.soup.scorer import Scorer

__all__ = ["Ranking"]

SAMPLE = 1024
"""Labelled outputs whose logits are kept for the convex start."""


class Ranking:
    """One pass over the records, all ingredients on each before the next is read.

    What is kept of a record is one array for all ingredients: small pieces between a pass's
    temporaries would keep the heap from shrinking, and cost several times their size.

    Attributes
    ----------
    count : ingredients N.
    labelled : labelled outputs v of each record.
    labels : i8[s] of the s outputs of each record whose logits are kept, the first.
    """

    def __init__(self, scorer: Scorer, progress: Callable[[str], None]) -> None:
        stack, records = scorer.stack, len(scorer.batches)
        alphas = [stack.pick(i) for i in range(len(stack))]
        self.count = len(stack)
        self.labelled: list[int] = []
        self.labels: list[Tensor] = []
        self.ensemble: list[
            Outcome
        ] = []  # of the mean of all ingredients' probabilities, by record
        self._logits: list[Tensor] = []  # f2[N, s, C] by record
        self._correct: list[NDArray[np.bool_]] = []  # bool[N, v] by record
        self._losses: list[NDArray[np.float32]] = []  # f4[N, v] by record
        quota = -(-2 * SAMPLE // max(1, records))
        for r in range(records):
            y = scorer.batches[r].y
            rows = (y >= 0).nonzero()[:quota, 0]
            v = int((y >= 0).sum())
            correct, losses = (
                np.empty((len(stack), v), np.bool_),
                np.empty((len(stack), v), np.float32),
            )
            kept: Tensor | None = None
            total: Tensor | None = None
            for i, alpha in enumerate(alphas):
                scorer.put(alpha)
                logits, _ = scorer.logits(r)
                found = Outcome.of(logits, y)
                correct[i], losses[i] = found.correct, found.losses
                if kept is None or total is None:
                    kept = torch.empty(
                        (len(stack), len(rows), logits.shape[1]), dtype=torch.float16
                    )
                    total = torch.zeros_like(logits)
                kept[i] = logits[rows].cpu()
                total += logits.softmax(1)
            assert kept is not None
            assert total is not None
            self.labelled.append(v)
            self.labels.append(y[rows].cpu())
            self.ensemble.append(Outcome.of(total.log(), y))
            self._logits.append(kept)
            self._correct.append(correct)
            self._losses.append(losses)
            progress(f"record {r + 1} of {records}")

    def of(self, i: int, records: Sequence[int]) -> Outcome:
        """Ingredient `i` on some records."""
        return Outcome.joined(Outcome(self._correct[r][i], self._losses[r][i]) for r in records)

    def logits(self, members: Sequence[int], records: Sequence[int]) -> Tensor:
        """Kept logits of some ingredients on some records, f4[N, v, C]."""
        sizes = [len(self.labels[r]) for r in records]
        out = torch.empty((len(members), sum(sizes), self._logits[0].shape[2]))
        for at, r in zip(np.cumsum(sizes), records, strict=True):
            part = out[:, int(at) - len(self.labels[r]) : int(at)]
            for row, i in enumerate(members):
                part[row] = self._logits[r][i]
        return out
