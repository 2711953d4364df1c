"""Soups of whole models, one weight an ingredient: greedy, and the pairwise line searches of Graph
Ladling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["gis_grid", "gis_search", "golden", "greedy"]

_GOLDEN = (5**0.5 - 1) / 2


def _one(i: int, n: int) -> NDArray[np.float64]:
    out = np.zeros(n)
    out[i] = 1.0
    return out


def greedy(
    order: Sequence[int], n: int, rank: Callable[[NDArray[np.float64]], tuple[float, float]]
) -> tuple[NDArray[np.float64], list[int]]:
    """Greedy soup (arXiv 2203.05482): add an ingredient where the soup's accuracy rises.

    Parameters
    ----------
    order : ingredients, the best first.
    rank : (accuracy, minus loss) of the soup with the weights f8[n].

    Returns
    -------
    (weights f8[n], members in the order they were taken). One evaluation an ingredient; never below
    the first.
    """
    members = [order[0]]
    weights = _one(order[0], n)
    best = rank(weights)[0]
    for i in order[1:]:
        candidate = np.zeros(n)
        candidate[[*members, i]] = 1 / (len(members) + 1)
        found = rank(candidate)[0]
        if found > best:
            members.append(i)
            weights, best = candidate, found
    return weights, members


def gis_grid(
    order: Sequence[int],
    n: int,
    rank: Callable[[NDArray[np.float64]], tuple[float, float]],
    grid: int = 20,
) -> tuple[NDArray[np.float64], list[float]]:
    """Greedy interpolation soup as published (arXiv 2306.10466): `soup = r soup + (1 - r) W_i`, r
    the best of a grid.

    The grid has both ends, so accuracy never falls; of equal r the largest is taken, which keeps
    the soup (the released code takes the smallest).

    Returns
    -------
    (weights f8[n], accuracy after each ingredient). 1 + (N - 1) `grid` evaluations.
    """
    weights = _one(order[0], n)
    path = [rank(weights)[0]]
    for i in order[1:]:
        candidates = [r * weights + (1 - r) * _one(i, n) for r in np.linspace(1, 0, grid)]
        scores = [rank(c)[0] for c in candidates]
        weights = candidates[int(np.argmax(scores))]
        path.append(max(scores))
    return weights, path


def golden(f: Callable[[float], float], evaluations: int) -> float:
    """The best point of a golden-section search of f's minimum over [0, 1] (Kiefer 1953), the ends
    not evaluated.
    """
    low, high = 0.0, 1.0
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    fa, fb = f(a), f(b)
    best = min((fa, a), (fb, b))
    for _ in range(evaluations - 2):
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - _GOLDEN * (high - low)
            fa = f(a)
            best = min(best, (fa, a))
        else:
            low, a, fa = a, b, fb
            b = low + _GOLDEN * (high - low)
            fb = f(b)
            best = min(best, (fb, b))
    return best[1]


def gis_search(
    order: Sequence[int],
    n: int,
    loss: Callable[[NDArray[np.float64]], float],
    rank: Callable[[NDArray[np.float64]], tuple[float, float]],
    evaluations: int = 5,
) -> tuple[NDArray[np.float64], list[float]]:
    """Greedy interpolation soup by golden section and racing.

    `loss`, cross-entropy on a few records, drives the search; only a candidate that beats the soup
    there is scored by `rank` on all of them, and taken where that is strictly better. Both ends
    count, ties keep the soup.

    Returns
    -------
    (weights f8[n], accuracy after each ingredient). About `evaluations` short passes and one full
    an ingredient, against the `grid` full ones of `gis_grid`.
    """
    weights = _one(order[0], n)
    best = rank(weights)
    path = [best[0]]
    for i in order[1:]:
        other = _one(i, n)

        def along(
            r: float, soup: NDArray[np.float64] = weights, other: NDArray[np.float64] = other
        ) -> float:
            return loss(r * soup + (1 - r) * other)

        r = golden(along, evaluations)
        ends = {0.0: along(0.0), 1.0: along(1.0), r: along(r)}
        r = min(ends, key=lambda at: (ends[at], -at))
        if r < 1.0:
            candidate = r * weights + (1 - r) * other
            found = rank(candidate)
            if found > best:
                weights, best = candidate, found
        path.append(best[0])
    return weights, path
