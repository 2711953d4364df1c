"""A soup replaces a simpler one only where it is better by more than the noise of a paired comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stages.soup.scorer import Outcome

__all__ = ["CLEAR", "Paired", "choose", "n_eff", "paired"]

CLEAR = 2.0
"""Standard errors of a difference in loss that decide between soups of the same accuracy."""


@dataclass(frozen=True)
class Paired:
    """Of two models on the same outputs.

    Attributes
    ----------
    gain, error : mean gain in accuracy, its standard error.
    p_value : of the one-sided sign test.
    loss_gain, loss_error : mean fall of the cross-entropy, its standard error.
    """

    gain: float
    error: float
    p_value: float
    loss_gain: float
    loss_error: float


def paired(simple: Outcome, other: Outcome) -> Paired:
    """Compare `other` with `simple`: accuracy by the outputs on which just one of them is right (McNemar), loss by all.

    The p-value is exact: the chance of at least as many wins among the differing outputs if either were as likely.
    """
    wins, losses = int((other.correct & ~simple.correct).sum()), int((simple.correct & ~other.correct).sum())
    n = max(1, simple.correct.size)
    gain = (wins - losses) / n
    error = math.sqrt(max(0.0, (wins + losses) / n - gain * gain) / n)
    falls = simple.losses.astype(np.float64) - other.losses
    mean, spread = (float(falls.mean()), float(falls.std())) if falls.size else (0.0, 0.0)
    return Paired(gain, error, _at_least(wins, wins + losses), mean, spread / math.sqrt(n))


def _at_least(wins: int, n: int) -> float:
    """P(X >= wins) of X ~ Binomial(n, 1/2)."""
    from scipy.stats import binom

    return float(binom.sf(wins - 1, n, 0.5)) if n else 1.0


def choose(outcomes: Mapping[str, Outcome]) -> str:
    """The method to keep.

    `outcomes` stand from the simplest to the most elaborate, on the same records. The one at hand is left for a later
    one that is more accurate by one standard error, unless its loss is clearly higher; and, where it is not less
    accurate by one, for one whose loss is clearly lower, by two: loss tells apart what the accuracy on a few hundred
    outputs cannot. Nothing that is less accurate than the first on these records is taken.
    """
    names = list(outcomes)
    chosen = names[0]
    for name in names[1:]:
        found = paired(outcomes[chosen], outcomes[name])
        lower, higher = (sign * found.loss_gain > CLEAR * found.loss_error for sign in (1, -1))
        better = found.gain > 0 and found.gain >= found.error and not higher
        clearer = found.gain >= -found.error and lower
        if outcomes[name].accuracy >= outcomes[names[0]].accuracy and (better or clearer):
            chosen = name
    return chosen


def n_eff(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effective number of ingredients of each row of f8[G, N]: exp of the entropy of its weights' sizes, f8[G].

    >>> n_eff(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3)
    array([1., 2.])
    """
    share = np.abs(alpha) / np.maximum(np.abs(alpha).sum(1, keepdims=True), 1e-300)
    logs = np.log(np.where(share > 0, share, 1.0))
    return np.asarray(np.exp(-(share * logs).sum(1)))
