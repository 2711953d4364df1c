"""A soup replaces the best single model only where a paired test, corrected for its looks, says
that it is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.soup.scorer import Outcome

__all__ = ["CLEAR", "LEVEL", "Choice", "Paired", "choose", "holm", "n_eff", "paired"]

LEVEL = 0.05
"""Chance that the best single model is left for a soup although none is better than it."""
CLEAR = 2.0
"""Standard errors by which a loss is clearly higher: a gain in accuracy does not count then."""


@dataclass(frozen=True)
class Paired:
    """Of two models on the same outputs.

    Attributes
    ----------
    gain, error : mean gain in accuracy, its standard error.
    p_value : of the one-sided sign test on the outputs that just one of them gets right.
    loss_gain, loss_error : mean fall of the cross-entropy, its standard error.
    loss_p_value : of the one-sided paired t-test on the cross-entropies.
    """

    gain: float
    error: float
    p_value: float
    loss_gain: float
    loss_error: float
    loss_p_value: float

    @property
    def better_p_value(self) -> float:
        """That the other model is better in accuracy or in loss: the smaller p-value, doubled for
        the two looks.
        """
        return min(1.0, 2 * min(self.p_value, self.loss_p_value))

    @property
    def worse(self) -> bool:
        """Less accurate by more than one standard error, or of a clearly higher loss."""
        return self.gain < -self.error or -self.loss_gain > CLEAR * self.loss_error


def paired(simple: Outcome, other: Outcome) -> Paired:
    """Compare `other` with `simple`: accuracy by the outputs on which just one of them is right
    (McNemar), loss by all.

    Both p-values are one-sided. That of the accuracy is exact: the chance of at least as many wins
    among the differing outputs if either were as likely. Outputs are taken as independent.
    """
    wins = int((other.correct & ~simple.correct).sum())
    losses = int((simple.correct & ~other.correct).sum())
    n = max(1, simple.correct.size)
    gain = (wins - losses) / n
    error = math.sqrt(max(0.0, (wins + losses) / n - gain * gain) / n)
    with np.errstate(
        invalid="ignore"
    ):  # infinite losses: the mean is not a number, which proves nothing
        falls = simple.losses.astype(np.float64) - other.losses
        fall, spread = (
            (float(falls.mean()), float(falls.std(ddof=1))) if falls.size > 1 else (0.0, 0.0)
        )
    fall_error = spread / math.sqrt(n)
    p_value = _at_least(wins, wins + losses)
    return Paired(gain, error, p_value, fall, fall_error, _above_zero(fall, fall_error, n - 1))


def _at_least(wins: int, n: int) -> float:
    """P(X >= wins) of X ~ Binomial(n, 1/2)."""
    from scipy.stats import binom

    return float(binom.sf(wins - 1, n, 0.5)) if n else 1.0


def _above_zero(mean: float, error: float, freedom: int) -> float:
    """One-sided p-value of Student's t; 1 where nothing differs or a loss is not a number."""
    from scipy.stats import t

    if not (math.isfinite(mean) and math.isfinite(error)):
        return 1.0
    if error == 0.0:
        return 0.0 if mean > 0.0 else 1.0
    return float(t.sf(mean / error, freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for as many looks (Holm 1979): at `LEVEL`, no false one among all with
    that probability.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, least = [1.0] * len(p_values), 0.0
    for done, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[i]))
        out[i] = least
    return out


@dataclass(frozen=True)
class Choice:
    """The method to keep, and the corrected p-value by which each other method is better than the
    first.

    Attributes
    ----------
    looks : methods compared with the first; one that equals an earlier one in all outputs is none,
        and has its p-value.
    """

    chosen: str
    corrected: dict[str, float]
    looks: int


def choose(outcomes: Mapping[str, Outcome], eligible: Sequence[str] | None = None) -> Choice:
    """The method to keep of those whose `outcomes`, on outputs none of them was fitted to, stand
    from the simplest on.

    A method is better than the first where its p-value, corrected by Holm for all methods looked
    at, is at most `LEVEL`, it is not less accurate, and it is not `Paired.worse`. Of those that
    are, the simplest is kept unless a later one is better than it by the same test, corrected for
    the methods still looked at. So where no soup is better than the first, it is left with
    probability `LEVEL`.

    Parameters
    ----------
    eligible : methods that may be chosen; all are looked at and counted. None: all.
    """
    equals = _equals(outcomes)
    first, *others = dict.fromkeys(equals.values())
    against = {name: paired(outcomes[first], outcomes[name]) for name in others}
    corrected = dict(zip(others, holm([a.better_p_value for a in against.values()]), strict=True))
    better = [
        name
        for name in others
        if corrected[name] <= LEVEL
        and outcomes[name].accuracy >= outcomes[first].accuracy
        and not against[name].worse
        and (eligible is None or name in eligible)
    ]
    chosen = better[0] if better else first
    for name in better[1:]:
        found = paired(outcomes[chosen], outcomes[name])
        if (len(better) - 1) * found.better_p_value <= LEVEL and not found.worse:
            chosen = name
    every = {name: corrected.get(same, 1.0) for name, same in equals.items() if name != first}
    return Choice(chosen, every, len(others))


def _equals(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Name -> the first name whose outcome is the same on every output: its own where none is."""
    out: dict[str, str] = {}
    for name, outcome in outcomes.items():
        same = (
            earlier
            for earlier in out.values()
            if np.array_equal(outcome.losses, outcomes[earlier].losses)
        )
        out[name] = next(same, name)
    return out


def n_eff(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effective number of ingredients of each row of f8[G, N]: exp of the entropy of its weights'
    sizes, f8[G].

    >>> n_eff(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3)
    array([1., 2.])
    """
    share = np.abs(alpha) / np.maximum(np.abs(alpha).sum(1, keepdims=True), 1e-300)
    logs = np.log(np.where(share > 0, share, 1.0))
    return np.asarray(np.exp(-(share * logs).sum(1)))
