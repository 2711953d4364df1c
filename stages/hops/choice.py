"""How many hops are taken, by hits of trainings on the same outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.judge.paired import Z, loss_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Candidate", "choose"]


@dataclass(frozen=True)
class Candidate:
    """A row of the table.

    Attributes
    ----------
    hops : the features are multiplied.
    accuracy : on validation outputs of the sample, mean over trainings.
    row_passes : that its layers read in a training and its evaluation, mean.
    gain, error : accuracy above that without propagated features, paired, and its standard error;
        0 for none.
    """

    hops: int
    accuracy: float
    row_passes: int
    gain: float
    error: float

    @property
    def shown(self) -> bool:
        """Whether the gain is beyond `Z` standard errors."""
        return self.gain - Z * self.error > 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shown": self.shown}


def choose(
    hits: Mapping[int, Sequence[NDArray[np.bool_]]], passes: Mapping[int, int]
) -> tuple[int, list[Candidate], str]:
    """The hops to take, the table, and the reason in words.

    Of the hops whose gain is shown the fewest are taken that are not more than a standard error
    behind the best of them.

    Parameters
    ----------
    hits : hops -> b1[outputs] for each training; 0 is among them, and pairs share the draws.
    passes : hops -> row-passes of a training and its evaluation.
    """
    table = []
    for hops, mine in sorted(hits.items()):
        gain = loss_of(mine, hits[0])
        accuracy = float(np.mean(np.stack(mine)))
        one = Candidate(hops, accuracy, passes[hops], gain.mean, gain.error if hops else 0.0)
        table.append(one)
    good = [one for one in table if one.hops and one.shown]
    if not good:
        return 0, table, "no number of hops is shown to gain accuracy"
    best = max(good, key=lambda one: (one.gain, -one.hops))
    for one in good:
        behind = loss_of(hits[best.hops], hits[one.hops])
        if one is best or behind.mean <= behind.error:
            break
    tail = "" if one is best else f", within a standard error of {best.hops} hops"
    gained = f"{100 * one.gain:.2f} ± {100 * one.error:.2f} points gained{tail}"
    return one.hops, table, gained
