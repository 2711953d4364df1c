"""What a code costs, by pairs of trainings judged on the same outputs, and whether that is shown to
be little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.judge.spending import LEAST_PAIRS, PAIRS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Loss", "Z", "loss_of", "verdict"]

Z = 2.0
"""Standard errors on either side of what was seen: 97.7 %, one-sided."""


@dataclass(frozen=True)
class Loss:
    """Accuracy that a code costs, as a share of the outputs.

    Attributes
    ----------
    mean, error : over pairs and outputs, and its standard error.
    pairs : trainings compared.
    """

    mean: float
    error: float
    pairs: int

    @property
    def bound(self) -> float:
        """What it may cost."""
        return self.mean + Z * self.error

    @property
    def least(self) -> float:
        """What it costs at least."""
        return self.mean - Z * self.error


def loss_of(exact: Sequence[NDArray[np.bool_]], coded: Sequence[NDArray[np.bool_]]) -> Loss:
    """Loss by pairs of hits on the same outputs.

    The error is that of the mean over outputs, of whose differences over the pairs the mean is
    taken first, and that of the mean over pairs, in quadrature. Half an output is added to either
    kind of disagreement (Agresti and Min 2005): few outputs that agree prove little.

    Parameters
    ----------
    exact, coded : b1[outputs] for each pair.

    >>> round(loss_of([np.ones(98, bool)], [np.ones(98, bool)]).error, 3)
    0.01
    """
    differences = np.stack([e.astype(np.float64) - c for e, c in zip(exact, coded, strict=True)])
    pairs, n = differences.shape
    each = differences.mean(0)
    mean = float(each.sum()) / (n + 2)
    spread = (float((each**2).sum()) + 1) / (n + 2) - mean * mean
    between = float(differences.mean(1).var(ddof=1)) if pairs > 1 else 0.0
    return Loss(
        float(each.mean()) if n else 0.0, math.sqrt(spread / (n + 2) + between / pairs), pairs
    )


def verdict(loss: Loss, allowed: float) -> bool | None:
    """Whether a code is allowed: True, False, or None where another pair may tell.

    Clearly too much ends it after any pair, clearly little enough from the second on; after the
    last pair, or where more than is allowed is lost on average by then, it is not shown to be
    little enough.
    """
    if loss.least > allowed:
        return False
    if loss.pairs >= LEAST_PAIRS and loss.bound <= allowed:
        return True
    if loss.pairs >= PAIRS or (loss.pairs >= LEAST_PAIRS and loss.mean > allowed):
        return False
    return None
