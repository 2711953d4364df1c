"""Orthonormal bases and eigenvectors whose bytes depend on their input alone: sequential float64,
no BLAS.

LAPACK rounds differently by thread count and by processor, and ingest is exact; these kernels use
nothing but +, -, *, / and sqrt, in a fixed order, which IEEE 754 rounds alike everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["eigh", "orthonormalise"]

_DEPENDENT = (
    1e-10  # a row that keeps less than this share of its length is a combination of those before it
)
_CONVERGED = 1e-15
_MOST_SWEEPS = 60


@njit(cache=True)
def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # Eight sums: the order is fixed, and the processor can still run them side by side.
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = len(a) // 8 * 8
    for i in range(0, whole, 8):
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
        s4 += a[i + 4] * b[i + 4]
        s5 += a[i + 5] * b[i + 5]
        s6 += a[i + 6] * b[i + 6]
        s7 += a[i + 7] * b[i + 7]
    for i in range(whole, len(a)):
        s0 += a[i] * b[i]
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@njit(cache=True)
def orthonormalise(rows: NDArray[np.float64]) -> None:
    """Make the rows orthonormal in place, by modified Gram-Schmidt run twice (Giraud et al. 2005:
    twice is enough).

    Parameters
    ----------
    rows : f8[k, n], contiguous. Rows that depend on those before them become zero. O(k^2 n) time.
    """
    for i in range(len(rows)):
        row = rows[i]
        before = np.sqrt(_dot(row, row))
        for _ in range(2):
            for j in range(i):
                share = _dot(rows[j], row)
                for c in range(len(row)):
                    row[c] -= share * rows[j, c]
        after = np.sqrt(_dot(row, row))
        if after <= _DEPENDENT * before:
            row[:] = 0.0
        else:
            for c in range(len(row)):
                row[c] /= after


@njit(cache=True)
def _jacobi(a: NDArray[np.float64], vectors: NDArray[np.float64]) -> None:
    n = len(a)
    for _ in range(_MOST_SWEEPS):
        off, total = 0.0, 0.0
        for p in range(n):
            for r in range(n):
                total += a[p, r] * a[p, r]
                if p != r:
                    off += a[p, r] * a[p, r]
        if off <= _CONVERGED * _CONVERGED * total:
            return
        for p in range(n - 1):
            for r in range(p + 1, n):
                if a[p, r] == 0.0:
                    continue
                theta = (a[r, r] - a[p, p]) / (2.0 * a[p, r])
                t = 1.0 / (abs(theta) + np.sqrt(theta * theta + 1.0))
                if theta < 0.0:
                    t = -t
                c = 1.0 / np.sqrt(t * t + 1.0)
                s = t * c
                for k in range(n):
                    x, y = a[p, k], a[r, k]
                    a[p, k], a[r, k] = c * x - s * y, s * x + c * y
                    x, y = vectors[p, k], vectors[r, k]
                    vectors[p, k], vectors[r, k] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = a[k, p], a[k, r]
                    a[k, p], a[k, r] = c * x - s * y, s * x + c * y
                a[p, r] = a[r, p] = 0.0


def eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and eigenvectors of a symmetric matrix by cyclic Jacobi (Golub & Van Loan,
    section 8.5).

    Parameters
    ----------
    matrix : f8[n, n], symmetric; not changed.

    Returns
    -------
    (values f8[n], descending; vectors f8[n, n], one a row). O(n^3) time a sweep, about 8 sweeps.
    """
    work, vectors = matrix.copy(), np.eye(len(matrix))
    _jacobi(work, vectors)
    values = np.diag(work).copy()
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[order]
