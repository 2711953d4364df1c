"""A truncated SVD whose bytes depend on the features and the seed alone, on any number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["reduce_features"]

_OVERSAMPLE = 16
_ITERATIONS = 5
_SEED = 0


def reduce_features(x: Any, dimensions: int) -> NDArray[np.float32]:
    """Principal coordinates `U S` of the features, scaled to mean square 1.

    Randomised subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4) in float64 with one BLAS thread, so
    that sums are always rounded alike; the sign of each column makes its entry of largest size positive.

    Parameters
    ----------
    x : scipy CSR or f4[N, D].
    dimensions : d, at most min(N, D); where it is more, min(N, D).

    Returns
    -------
    f4[N, d]. O(nnz d) time an iteration; 16 (d + 16) bytes a node and as many a column.
    """
    import scipy.linalg
    from threadpoolctl import threadpool_limits

    dimensions = min(dimensions, *x.shape)
    width = min(dimensions + _OVERSAMPLE, *x.shape)
    x = x.astype(np.float64)
    with threadpool_limits(1):
        basis = np.random.default_rng(_SEED).standard_normal((x.shape[1], width))
        basis = scipy.linalg.qr(x @ basis, mode="economic", overwrite_a=True, check_finite=False)[0]
        for _ in range(_ITERATIONS):
            other = scipy.linalg.qr(x.T @ basis, mode="economic", overwrite_a=True, check_finite=False)[0]
            basis = scipy.linalg.qr(x @ other, mode="economic", overwrite_a=True, check_finite=False)[0]
        u, s, _ = scipy.linalg.svd((x.T @ basis).T, full_matrices=False, check_finite=False)
        reduced = (basis @ u[:, :dimensions]) * s[:dimensions]
    largest = reduced[np.abs(reduced).argmax(axis=0), np.arange(dimensions)]
    reduced *= np.where(largest < 0, -1.0, 1.0)
    size = np.sqrt(np.mean(reduced**2))
    return (reduced / (size if size > 0 else 1.0)).astype(np.float32)
