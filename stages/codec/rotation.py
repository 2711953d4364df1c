"""Rotations that make the parts of a product code alike in what they hold, and the entries in the
rotated space.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec.kmeans import k_means, means
from stockpot.stages.codec.nearest import nearest, offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["principal", "rotated_parts"]

_TRAIN_ROWS = 32_768
_START, _ROUNDS, _LAST = (
    8,
    16,
    4,
)  # iterations of k-means before the rounds of both, rounds, and those after
_FLOOR = 1e-9  # share of the largest variance that a direction is taken to have at least


def principal(x: NDArray[np.float32], edges: Sequence[int]) -> NDArray[np.float64]:
    """f8[D, D], orthonormal: principal directions, dealt to the parts so that products of their
    variances are equal.

    Ge, He, Ke and Sun 2013, "Optimized product quantization", section 3.2: of all rotations of
    normal data this has the least error.

    Parameters
    ----------
    x : f4[n, D], centred. edges : first column of each part, and D.
    """
    wide = x.astype(np.float64)
    variance, directions = np.linalg.eigh(wide.T @ wide)
    variance, directions = variance[::-1], directions[:, ::-1]
    size = np.log(
        np.maximum(variance / max(float(variance[0]), np.finfo(float).tiny), _FLOOR) / _FLOOR
    )
    room = np.diff(edges)
    total = np.zeros(len(room))
    dealt: list[list[int]] = [[] for _ in room]
    for j, gain in enumerate(size):
        u = min(
            (u for u in range(len(room)) if len(dealt[u]) < room[u]), key=lambda u: (total[u], u)
        )
        dealt[u].append(j)
        total[u] += gain
    return directions[:, list(itertools.chain(*dealt))]


def rotated_parts(
    x: NDArray[np.float32], edges: Sequence[int], entries: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rotation f4[D, D], levels f4[D, entries] of `x rotation`), entries that are not needed
    repeating the last one.

    Rounds of one step of k-means in the rotated space and of the rotation nearest to its result
    (orthogonal Procrustes), from the principal directions. O(n D (D + entries)) a round.

    Parameters
    ----------
    x : f4[n, D], centred, in random order.
    """
    x = x[:_TRAIN_ROWS]
    rotation = principal(x, edges)
    spans = list(itertools.pairwise(edges))
    y = (x @ rotation).astype(np.float32)
    parts = [k_means(np.ascontiguousarray(y[:, lo:hi]), entries, _START, rng) for lo, hi in spans]
    for turn in range(_ROUNDS + _LAST):
        found = np.empty_like(y)
        for u, (lo, hi) in enumerate(spans):
            parts[u], ids = _step(np.ascontiguousarray(y[:, lo:hi]), parts[u])
            found[:, lo:hi] = parts[u][ids]
        if turn < _ROUNDS:
            left, _, right = np.linalg.svd(x.T.astype(np.float64) @ found.astype(np.float64))
            rotation = left @ right
            y = (x @ rotation).astype(np.float32)
    levels = np.empty((x.shape[1], entries), np.float32)
    for (lo, hi), part in zip(spans, parts, strict=True):
        levels[lo:hi] = part[np.minimum(np.arange(entries), len(part) - 1)].T
    return rotation.astype(np.float32), levels


def _step(
    y: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """(means of the rows nearest to each centroid, empty ones kept; which that is)."""
    ids = np.empty(len(y), np.uint32)
    nearest(y, np.ascontiguousarray(centroids.T), offsets(centroids), ids)
    found, counts = means(y, ids, len(centroids))
    found[counts == 0] = centroids[counts == 0]
    return found, ids
