"""BiFeat's own codecs as published (arXiv 2207.14696, and the authors' code), to be measured
against.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.kmeans import means
from stockpot.stages.codec.nearest import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.codec.codec_names import Kind

__all__ = ["log_levels", "vector_parts"]

_EPS = 1e-5
_TRAIN_ROWS = 50_000
_RESERVED = 1e-4
"""Value of all columns of a part's last entry, for rows whose norm there is small."""


def log_levels(sample: NDArray[np.float32], bits: int) -> dict[str, NDArray[Any]]:
    """Levels uniform in the logarithm, one set for all columns: `levels` f4[1, 2^bits], `limits`
    f4[1, 2^bits - 1].

    Codes rise with the value, where BiFeat's 8 bits are signed; what they decode to is the same. At
    one bit it is the sign times the mean magnitude, plus 0.1 where that is below 0.1.
    """
    size = np.abs(sample.astype(np.float64))
    if bits == 1:
        mean = size.mean()
        mean += 0.1 if mean < 0.1 else 0.0
        return {
            "levels": np.array([[-mean, mean]], np.float32),
            "limits": np.zeros((1, 1), np.float32),
        }
    low = max(float(np.quantile(size, 0.005)), _EPS)
    high = max(float(np.quantile(size, 0.995)), 2 * _EPS)
    first, last = np.log2(low), np.log2(high) + _EPS
    half = 2 ** (bits - 1)
    step = (last - first) / half
    up = 2.0 ** (first + step * (np.arange(half) + 0.5))
    edges = (2.0 ** (first + step * np.arange(1, half))).astype(np.float32)
    # A code is above a limit where the value is: positive edges belong to the code above them.
    limits = np.concatenate([-edges[::-1], [0.0], np.nextafter(edges, np.float32(0))])
    return {
        "levels": np.array([[*-up[::-1], *up]], np.float32),
        "limits": limits[None].astype(np.float32),
    }


def vector_parts(
    sample: NDArray[np.float32], kind: Kind, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Codebooks of all parts: assigned by cosine, centroids the arithmetic means of the raw rows.

    Returns
    -------
    levels : f4[D, K]. directions : f4[D, K], the same at norm 1 in every part: what rows are
        assigned by.
    rim : f8[parts]; rows whose norm in the part is below it get the last entry, which is reserved
        for them.
    """
    columns, entries = sample.shape[1], kind.entries
    levels, directions = (np.zeros((columns, entries), np.float32) for _ in range(2))
    edges = kind.edges(columns)
    rims = np.zeros(len(edges) - 1)
    for u, (lo, hi) in enumerate(itertools.pairwise(edges)):
        part = np.ascontiguousarray(sample[:, lo:hi])
        norm = np.linalg.norm(part[:_TRAIN_ROWS].astype(np.float64), axis=1)
        rims[u] = np.quantile(norm, min(1.0, 0.3 / entries))
        centroids = _cosine_means(part[:_TRAIN_ROWS][norm >= rims[u]], entries - 1, rng)
        levels[lo:hi, :-1], levels[lo:hi, -1] = centroids.T, _RESERVED
        directions[lo:hi, :-1] = _unit(centroids).T
    return {"levels": levels, "directions": directions, "rim": rims}


def _cosine_means(
    x: NDArray[np.float32], entries: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    alive = np.flatnonzero((x != 0).any(1))
    start = alive if len(alive) else np.arange(len(x))
    centroids = x[rng.choice(start, entries, replace=len(start) < entries)]
    ids, none = np.empty(len(x), np.uint32), np.zeros(entries, np.float32)
    tolerance = 0.03 * entries
    while True:
        nearest(x, np.ascontiguousarray(_unit(centroids).T), none, ids)
        found, counts = means(x, ids, entries)
        found[counts == 0] = centroids[counts == 0]
        change = np.linalg.norm(found.astype(np.float64) - centroids, axis=1).sum() ** 2
        centroids = found
        if change < tolerance:
            return centroids
        tolerance *= 1.2


def _unit(centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(centroids.astype(np.float64), axis=1, keepdims=True)
    return (centroids / np.maximum(norm, np.finfo(np.float32).tiny)).astype(np.float32)
