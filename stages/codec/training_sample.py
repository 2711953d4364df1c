"""A sample of rows that represents every part of the ids and every degree; the same rows for any
number of tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CHUNK_ROWS", "sample_rows"]

CHUNK_ROWS = 1 << 16
"""Rows that are sampled together."""


def sample_rows(
    degree: NDArray[np.integer], start: int, num_rows: int, wanted: int, seed: int
) -> NDArray[np.int64]:
    """Rows of one chunk that are in the sample, ascending.

    Every chunk gives its share of `wanted`, drawn systematically (every k-th from a random start)
    among its rows by degree: rows of all degrees are in the sample as they are in the graph.

    Parameters
    ----------
    degree : of the rows from `start`, at most `CHUNK_ROWS` of them; `start` is a multiple of
        `CHUNK_ROWS`.
    num_rows, wanted : of the whole matrix.
    """
    stop = start + len(degree)
    if wanted >= num_rows:
        return np.arange(start, stop)
    count = stop * wanted // num_rows - start * wanted // num_rows
    if not count:
        return np.zeros(0, np.int64)
    step = len(degree) / count
    at = (np.random.default_rng((seed, start)).random() + np.arange(count)) * step
    by_degree = np.argsort(degree, kind="stable")
    return np.sort(start + by_degree[np.minimum(at.astype(np.int64), len(degree) - 1)])
