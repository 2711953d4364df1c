"""Every candidate is a table of weights, and all are scored by the same passes over the same
records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from stockpot.stages.soup.calibrate import batch_norms, recalibrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.soup.kept_batches import Batches
    from stockpot.stages.soup.stack import Stack
    from stockpot.stages.step import Step
    from stockpot.stages.train.model import Network

__all__ = ["Outcome", "Scorer"]


@dataclass(frozen=True)
class Outcome:
    """How a model does on the labelled outputs of some records: bool[n] who is right, f4[n] their
    cross-entropies.
    """

    correct: NDArray[np.bool_]
    losses: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean()) if self.correct.size else 0.0

    @property
    def loss(self) -> float:
        return float(self.losses.mean(dtype=np.float64)) if self.losses.size else 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: accuracy, ties by lower loss (one that is not a number loses)."""
        return self.accuracy, -self.loss if self.loss == self.loss else -float("inf")

    @classmethod
    def of(cls, logits: Tensor, y: Tensor) -> Outcome:
        """Of logits f4[n, classes] and labels i8[n], -1 where unlabelled."""
        labelled = y >= 0
        losses = functional.cross_entropy(logits, y, ignore_index=-1, reduction="none")
        return cls((logits.argmax(1) == y)[labelled].cpu().numpy(), losses[labelled].cpu().numpy())

    @classmethod
    def joined(cls, parts: Iterable[Outcome]) -> Outcome:
        every = list(parts)
        return cls(
            np.concatenate([p.correct for p in every]), np.concatenate([p.losses for p in every])
        )


class Scorer:
    """One model in eval mode that takes any table's weights.

    Parameters
    ----------
    model : holds the weights of the soup at hand; dropout is never active.
    calibration : steps on which a soup's batch norms are measured anew; used only where it has
        some.

    Attributes
    ----------
    passes : records passed forward so far, one backward pass counted as two more.
    """

    def __init__(
        self,
        model: Network,
        stack: Stack,
        batches: Batches,
        calibration: Callable[[], Iterable[Step]] | None = None,
    ) -> None:
        self.model, self.stack, self.batches = model.eval(), stack, batches
        self.calibration = calibration if batch_norms(model) else None
        self.passes = 0
        self._found: dict[tuple[bytes, tuple[int, ...]], Outcome] = {}

    def put(self, alpha: NDArray[np.float64], *, calibrated: bool = True) -> None:
        """Give the model the soup of `alpha`: buffers of its leading ingredient, statistics of its
        own.

        An ingredient alone keeps the statistics it came with. `calibrated`: False leaves statistics
        as they are.
        """
        self.stack.mix(alpha, self.stack.parameters)
        if not calibrated:
            return
        lead = self.stack.states[self.stack.lead(alpha)]
        for name, buffer in self.model.named_buffers():
            if name in lead:
                buffer.copy_(lead[name])
        if self.calibration is not None and not np.array_equal(alpha, alpha.round()):
            recalibrate(self.model, self.calibration())

    @torch.no_grad()
    def logits(self, i: int) -> tuple[Tensor, Tensor]:
        """(logits f4[n, classes], labels) of record `i` by the weights put last."""
        step = self.batches[i]
        self.passes += 1
        return self.model(step.x, step.adjs), step.y

    def outcome(self, alpha: NDArray[np.float64], records: Sequence[int]) -> Outcome:
        """Of the soup of `alpha` on `records`; known ones are not computed again."""
        key = (alpha.tobytes(), tuple(records))
        if key not in self._found:
            self.put(alpha)
            self._found[key] = Outcome.joined(Outcome.of(*self.logits(i)) for i in records)
        return self._found[key]

    def remember(
        self, alpha: NDArray[np.float64], records: Sequence[int], outcome: Outcome
    ) -> None:
        """An outcome that was computed elsewhere."""
        self._found[alpha.tobytes(), tuple(records)] = outcome

    def gradient(
        self,
        alpha: NDArray[np.float64],
        records: Sequence[int],
        *,
        members: Sequence[int] | None = None,
        scale: float = 1.0,
        calibrated: bool = False,
    ) -> tuple[float, NDArray[np.float64], float]:
        """Mean cross-entropy of the soup over the labelled outputs of `records`, and its gradient
        by `alpha`.

        By projection (arXiv 2407.03641): one ordinary backward pass of the soup, then inner
        products with the ingredients, those of `members` where given. `scale` multiplies the
        logits; `calibrated`: see `put`.

        Returns
        -------
        (loss, f8[T, N], derivative by `scale`)
        """
        self.put(alpha, calibrated=calibrated)
        parameters = self.stack.parameters
        for p in parameters.values():
            p.grad = None
        steps = [self.batches[i] for i in records]
        count = max(1, sum(int((step.y >= 0).sum()) for step in steps))
        total = by_scale = 0.0
        for step in steps:
            logits = self.model(step.x, step.adjs)
            leaf = logits.detach().mul(scale).requires_grad_()
            loss = functional.cross_entropy(leaf, step.y, ignore_index=-1, reduction="sum") / count
            (by_logits,) = torch.autograd.grad(loss, leaf)
            by_scale += float((by_logits * logits.detach()).sum())
            logits.backward(by_logits * scale)
            total += float(loss.detach())
            self.passes += 3
        grads: dict[str, Any] = {name: p.grad for name, p in parameters.items()}
        inner = self.stack.inner(grads, members)
        for p in parameters.values():
            p.grad = None
        return total, inner, by_scale
