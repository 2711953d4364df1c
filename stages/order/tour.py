"""A fixed cycle through all records whose steps are long, at least as long on average as those of
random cycles.

A cycle that no reversal of a run lengthens is never shorter than the mean of all cycles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["longest_tour", "random_length", "tour_length"]

_SWEEPS = 30
_STARTS = 8  # for up to _MANY records; one start above
_MANY = 512
_GAIN = 1e-12  # a smaller improvement is rounding


def tour_length(tour: NDArray[np.int32], distance: NDArray[np.float64]) -> float:
    """Sum of the steps of the closed cycle."""
    return float(distance[tour, np.roll(tour, -1)].sum())


def random_length(distance: NDArray[np.float64]) -> float:
    """Expected length of a random closed cycle: R times the mean distance of different records."""
    records = len(distance)
    return float(distance.sum() / (records - 1)) if records > 1 else 0.0


@njit(cache=True, nogil=True)
def _greedy(distance: NDArray[np.float64], start: int) -> NDArray[np.int32]:
    """Always on to the farthest record not yet seen; ties to the smallest id."""
    records = len(distance)
    tour = np.empty(records, np.int32)
    used = np.zeros(records, np.bool_)
    at = start
    for step in range(records):
        tour[step] = at
        used[at] = True
        best, best_distance = -1, -1.0
        for other in range(records):
            if not used[other] and distance[at, other] > best_distance:
                best, best_distance = other, distance[at, other]
        at = best
    return tour


@njit(cache=True, nogil=True)
def _two_opt(tour: NDArray[np.int32], distance: NDArray[np.float64]) -> None:
    """Reverse runs while that lengthens the cycle, for at most `_SWEEPS` passes."""
    records = len(tour)
    for _ in range(_SWEEPS):
        better = False
        for i in range(records - 2):
            for j in range(i + 2, records if i > 0 else records - 1):
                a, b = tour[i], tour[i + 1]
                c, d = tour[j], tour[(j + 1) % records]
                if distance[a, c] + distance[b, d] > distance[a, b] + distance[c, d] + _GAIN:
                    tour[i + 1 : j + 1] = tour[i + 1 : j + 1][::-1].copy()
                    better = True
        if not better:
            return


def longest_tour(distance: NDArray[np.float64]) -> NDArray[np.int32]:
    """Long closed cycle: the best of several greedy cycles, each improved by 2-opt. Deterministic;
    starts at record 0.

    O(R^2) a sweep, at most 30 sweeps from about 8 starts. The published code maximises the same sum
    by simulated annealing for up to 1800 s (arXiv 2212.09083).

    Parameters
    ----------
    distance : f8[R, R], symmetric, zero diagonal

    Returns
    -------
    i4[R], a permutation
    """
    records = len(distance)
    best, best_length = np.arange(records, dtype=np.int32), -1.0
    starts = _STARTS if records <= _MANY else 1
    for start in range(0, records, max(1, records // starts)):
        tour = _greedy(distance, start)
        _two_opt(tour, distance)
        length = tour_length(tour, distance)
        if length > best_length:
            best, best_length = tour, length
    return np.roll(best, -int(np.flatnonzero(best == 0)[0])) if records else best
