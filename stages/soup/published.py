"""LS and PLS as their authors released them (arXiv 2503.11612), kept for comparison: nothing here
is recommended.

Weights are Xavier-normal, softmaxed, stored, and softmaxed again when used; a logit scale beta is
learned at the same rate and dropped on export; SGD at rates of 1 to 110 with cosine warm restarts;
the last weights are the result. (Their internal model was left in training mode, dropout on, by
oversight; here it is in eval mode.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.soup.learned import softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["SgdParams", "learn_published", "restart"]


@dataclass(frozen=True)
class SgdParams:
    """How `published` (LS) and `partition` (PLS) are run; defaults are the authors' for GraphSAGE
    on ogbn-products.

    Attributes
    ----------
    epochs, rate, period : steps of SGD, their first rate, epochs between two warm restarts.
    parts, drawn : K and R of PLS: parts that METIS makes, and those that an epoch's step sees.
    """

    epochs: int = 25
    rate: float = 10.0
    period: int = 4
    parts: int = 32
    drawn: int = 4


def restart(epoch: int, period: int) -> float:
    """Multiplier of a cosine with warm restarts every `period` epochs.

    >>> [round(restart(e, 4), 3) for e in range(5)]
    [1.0, 0.854, 0.5, 0.146, 1.0]
    """
    return 0.5 * (1 + math.cos(math.pi * (epoch % period) / period))


def learn_published(
    shape: tuple[int, int],
    gradient: Callable[[NDArray[np.float64], float, Any], tuple[float, NDArray[np.float64], float]],
    draws: Sequence[Any],
    *,
    rate: float,
    period: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Learned soup as published.

    Parameters
    ----------
    shape : (T, N).
    gradient : (table, beta, draw) -> (loss, by the table f8[T, N], by beta). A draw is what an
        epoch's one step sees: always the whole graph in LS, a union of R of K parts in PLS.
    draws : one an epoch.

    Returns
    -------
    f8[T, N] on the simplex.
    """
    t, n = shape
    stored = softmax(np.random.default_rng(seed).normal(0.0, math.sqrt(2 / (t + n)), shape))
    beta = 1.0
    for epoch, draw in enumerate(draws):
        alpha = softmax(stored)
        _, d, by_beta = gradient(alpha, beta, draw)
        now = rate * restart(epoch, period)
        stored = stored - now * alpha * (d - (alpha * d).sum(1, keepdims=True))
        beta -= now * by_beta
    return softmax(stored)
