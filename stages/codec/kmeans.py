"""Euclidean k-means: seeded far apart, empty clusters refilled, the same centroids for a seed on
one machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec.nearest import nearest, offsets
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["k_means", "means"]

_SEED_ROWS = 8192  # rows among which the start is drawn


def k_means(
    x: NDArray[np.float32], entries: int, iterations: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Centroids f4[entries, D], fewer where `x` has no more distinct rows: these are exact then.

    Started by k-means++ (Arthur and Vassilvitskii 2007) on at most 8,192 rows; a cluster that
    empties takes the row farthest from its centroid. O(n D entries) an iteration.

    Parameters
    ----------
    x : f4[n, D], n >= 1, in random order.
    """
    few = np.unique(x[: 4 * entries], axis=0)
    if len(few) <= entries:
        few = np.unique(x, axis=0)
        if len(few) <= entries:
            return few
    centroids = _spread(x[:_SEED_ROWS], entries, rng)
    ids = np.empty(len(x), np.uint32)
    for _ in range(iterations):
        nearest(x, np.ascontiguousarray(centroids.T), offsets(centroids), ids)
        found, counts = means(x, ids, entries)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            far = ((x - centroids[ids]) ** 2).sum(1)
            found[empty] = x[np.argsort(-far, kind="stable")[: len(empty)]]
        centroids = found
    return centroids


def _spread(x: NDArray[np.float32], entries: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows drawn one after the other, each with probability as its squared distance from those
    drawn before.
    """
    chosen = np.empty((entries, x.shape[1]), np.float32)
    chosen[0] = x[rng.integers(len(x))]
    far = np.full(len(x), np.inf)
    for k in range(1, entries):
        far = np.minimum(far, ((x - chosen[k - 1]) ** 2).sum(1, dtype=np.float64))
        reach = np.cumsum(far)
        if reach[-1] <= 0:  # fewer distinct rows here than entries
            chosen[k:] = x[rng.integers(len(x), size=entries - k)]
            break
        chosen[k] = x[
            min(int(np.searchsorted(reach, rng.random() * reach[-1], side="right")), len(x) - 1)
        ]
    return chosen


def means(
    x: NDArray[np.float32], ids: NDArray[np.uint32], entries: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(mean f4[entries, D] of the rows of each id, 0 where it has none; counts i8[entries])."""
    total, counts = np.zeros((entries, x.shape[1])), np.zeros(entries, np.int64)
    _add(x, ids, total, counts)
    return (total / np.maximum(counts, 1)[:, None]).astype(np.float32), counts


@njit(cache=True, nogil=True)
def _add(
    x: NDArray[np.float32],
    ids: NDArray[np.uint32],
    total: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    for i in range(x.shape[0]):
        counts[ids[i]] += 1
        row = total[ids[i]]
        for j in range(x.shape[1]):
            row[j] += x[i, j]
