"""How much two records differ in their labels: symmetrised KL divergence of smoothed histograms,
exactly symmetric.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["distances", "histograms"]

_APART = (
    1e-5  # added between different records, so that even equal ones can be drawn after each other
)


def histograms(
    labels: NDArray[np.integer], ptr: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Share of each class among the outputs of a record, after one more of every class (Laplace).

    Parameters
    ----------
    labels : int[O], labels of the outputs, record by record; -1 is not counted
    ptr : i8[R + 1], where each record starts
    classes : C, at least 1

    Returns
    -------
    f8[R, C], rows sum to 1
    """
    records = len(ptr) - 1
    record = np.repeat(np.arange(records), np.diff(ptr))
    known = labels >= 0
    counts = np.bincount(record[known] * classes + labels[known], minlength=records * classes)
    smooth = counts.reshape(records, classes) + 1.0
    return smooth / smooth.sum(axis=1, keepdims=True)


@njit(cache=True, nogil=True)
def distances(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(a || b) + KL(b || a) + 1e-5 for every pair of rows, 0 on the diagonal.

    One product of P with log P, as s_a + s_b - X_ab - X_ba with X = P log P^T and s its diagonal.
    Written out with a fixed order of additions rather than handed to BLAS, whose sums change with
    its threads. O(R^2 C).

    Parameters
    ----------
    shares : f8[R, C], positive, rows sum to 1

    Returns
    -------
    f8[R, R], symmetric, not negative
    """
    records, classes = shares.shape
    logs = np.empty((classes, records))
    for r in range(records):
        for c in range(classes):
            logs[c, r] = math.log(shares[r, c])
    cross = np.zeros((records, records))
    for a in range(records):
        for c in range(classes):
            share = shares[a, c]
            for b in range(records):
                cross[a, b] += share * logs[c, b]
    out = np.empty((records, records))
    for a in range(records):
        for b in range(records):
            apart = (cross[a, a] + cross[b, b]) - (cross[a, b] + cross[b, a])
            out[a, b] = 0.0 if a == b else max(apart, 0.0) + _APART
    return out
