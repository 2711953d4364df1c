"""Levels of one column with the least squared error, by Lloyd's iteration on the sorted sample from
several starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["lloyd_max"]

_ITERATIONS = 1000
_TOLERANCE = 1e-7  # relative change of the error at which the iteration stops


def lloyd_max(sample: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    """Ascending levels of each column.

    Lloyd (1982), Max (1960). A column of at most `levels` distinct values gets these, and is coded
    without loss. Three starts (equal counts; equal steps; point density as the cube root of the
    density, Panter and Dite 1951): in one dimension each ends in a local optimum, and heavy tails
    have several.

    Parameters
    ----------
    sample : f4[n, D], finite, n >= 1.
    levels : 2 or more.

    Returns
    -------
    f4[D, levels]. O(n log n + iterations levels log n) a column.
    """
    out = np.empty((sample.shape[1], levels), np.float32)
    for j in range(sample.shape[1]):
        column = np.sort(sample[:, j].astype(np.float64))
        values = np.unique(column)
        if len(values) <= levels:
            out[j] = np.concatenate([values, np.full(levels - len(values), values[-1])])
            continue
        total = np.concatenate([[0.0], np.cumsum(column - column.mean())])
        found = [
            _iterate(column, total, start, _ITERATIONS, _TOLERANCE)
            for start in _starts(column, levels)
        ]
        out[j] = max(found, key=lambda one: one[1])[0]
    return out


def _starts(column: NDArray[np.float64], levels: int) -> list[NDArray[np.float64]]:
    share = (np.arange(levels) + 0.5) / levels
    by_count = np.quantile(column, share)
    by_step = column[0] + (column[-1] - column[0]) * share
    # Density by the gaps between equal-count quantiles; its cube root is integrated over them.
    edges = np.quantile(column, np.linspace(0, 1, 4 * levels + 1))
    gaps = np.diff(edges)
    mass = np.concatenate([[0.0], np.cumsum(gaps ** (2 / 3))])
    by_root = np.interp(share * mass[-1], mass, edges)
    return [by_count, by_step, by_root]


@njit(cache=True)
def _iterate(
    column: NDArray[np.float64],
    total: NDArray[np.float64],
    start: NDArray[np.float64],
    most: int,
    tolerance: float,
) -> tuple[NDArray[np.float64], float]:
    """(levels, energy explained by them): the larger, the smaller the error. `total` sums the
    centred column.
    """
    n = column.size
    mean = column.sum() / n
    levels = start.copy()
    best = -1.0
    for _ in range(most):
        explained = 0.0
        first = 0
        for k in range(levels.size):
            if k + 1 < levels.size:
                stop = max(
                    np.searchsorted(column, (levels[k] + levels[k + 1]) / 2, side="right"), first
                )
            else:
                stop = n
            if stop > first:
                centre = (total[stop] - total[first]) / (stop - first)
                explained += centre * centre * (stop - first)
                levels[k] = mean + centre
            first = stop
        if explained - best <= tolerance * explained:
            best = explained
            break
        best = explained
    return levels, best
