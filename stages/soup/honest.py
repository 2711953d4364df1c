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

__all__ = ["Paired", "choose", "n_eff", "paired"]


@dataclass(frozen=True)
class Paired:
    """Of two models on the same outputs: mean gain in accuracy, its standard error, one-sided sign test's p-value."""

    gain: float
    error: float
    p_value: float


def paired(simple: NDArray[np.bool_], other: NDArray[np.bool_]) -> Paired:
    """Compare `other` with `simple`, bool[n] each, by the outputs on which just one of them is right (McNemar).

    The p-value is exact: the chance of at least as many wins among the differing outputs if either were as likely.
    """
    wins, losses = int((other & ~simple).sum()), int((simple & ~other).sum())
    n = max(1, simple.size)
    gain = (wins - losses) / n
    error = math.sqrt(max(0.0, (wins + losses) / n - gain * gain) / n)
    return Paired(gain, error, _at_least(wins, wins + losses))


def _at_least(wins: int, n: int) -> float:
    """P(X >= wins) of X ~ Binomial(n, 1/2)."""
    from scipy.stats import binom

    return float(binom.sf(wins - 1, n, 0.5)) if n else 1.0


def choose(outcomes: Mapping[str, Outcome]) -> tuple[str, dict[str, Paired]]:
    """The method to keep, and every method's comparison with the first.

    `outcomes` stand from the simplest to the most elaborate, on the same records. The one at hand is left for a later
    one where that gains more than one standard error; so the choice is never below the first on these records.
    """
    names = list(outcomes)
    chosen = names[0]
    for name in names[1:]:
        found = paired(outcomes[chosen].correct, outcomes[name].correct)
        if found.gain > 0 and found.gain >= found.error:
            chosen = name
    return chosen, {name: paired(outcomes[names[0]].correct, outcomes[name].correct) for name in names}


def n_eff(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effective number of ingredients of each row of f8[G, N]: exp of the entropy of its weights' sizes, f8[G].

    >>> n_eff(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3)
    array([1., 2.])
    """
    share = np.abs(alpha) / np.maximum(np.abs(alpha).sum(1, keepdims=True), 1e-300)
    logs = np.log(np.where(share > 0, share, 1.0))
    return np.asarray(np.exp(-(share * logs).sum(1)))
