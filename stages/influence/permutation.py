"""Seeded shuffling that depends on the seed and the values alone: no generator whose stream a
library may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.splitmix import GOLDEN, MASK, mixed64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["jitter", "permutation", "scramble"]


def scramble(values: NDArray[np.integer], seed: int) -> NDArray[np.uint64]:
    """splitmix64 of each value under a seed: u8[n], one to one, evenly spread.

    >>> [int(v) >> 48 for v in scramble(np.arange(3), 7)]
    [47284, 10216, 57302]
    """
    with np.errstate(over="ignore"):
        key = mixed64(np.array([seed & MASK], np.uint64) + np.uint64(GOLDEN))
        return mixed64(np.asarray(values).astype(np.uint64) + key + np.uint64(GOLDEN))


def permutation(n: int, seed: int) -> NDArray[np.int64]:
    """A seeded order of 0..n-1: i8[n]."""
    return np.argsort(scramble(np.arange(n), seed), kind="stable").astype(np.int64)


def jitter(n: int, seed: int) -> NDArray[np.float64]:
    """Seeded factors in (0.5, 1] that shake an order of priorities without losing it: f8[n]; seed 0
    gives ones.
    """
    if seed == 0:
        return np.ones(n, np.float64)
    return 1.0 - (scramble(np.arange(n), seed) >> np.uint64(11)).astype(np.float64) * 2.0**-54
