"""A truncated SVD whose bytes depend on the features alone: not on threads, not on the BLAS, not on
the processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.ingest.buckets import frozen
from stockpot.stages.ingest.eigen import eigh, orthonormalise
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from stockpot.stages.ingest.features import SparseRows

    Block = tuple[int, NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]

__all__ = ["reduce_features"]

_OVERSAMPLE = 16
_ITERATIONS = 7
_SEED = 0
_BLOCK_ROWS = 8192


@njit(cache=True)
def _row_product(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    i: int,
    basis: NDArray[np.float64],
    row: NDArray[np.float64],
) -> None:
    """Row = A_i basis, entry by entry. basis : f8[D, k]; row : f8[k]."""
    row[:] = 0.0
    for e in range(indptr[i], indptr[i + 1]):
        value, j = np.float64(data[e]), indices[e]
        for c in range(len(row)):
            row[c] += value * basis[j, c]


@njit(cache=True)
def _add_gram(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    basis: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Out += A^T (A basis), row by row, so that A basis is never held. basis, out : f8[D, k]."""
    row = np.empty(basis.shape[1])
    for i in range(len(indptr) - 1):
        _row_product(indptr, indices, data, i, basis, row)
        for e in range(indptr[i], indptr[i + 1]):
            value, j = np.float64(data[e]), indices[e]
            for c in range(len(row)):
                out[j, c] += value * row[c]


@njit(cache=True)
def _project(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    basis: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """Out = A basis, summed in float64. basis : f8[D, d]; out : f4[rows, d]."""
    row = np.empty(basis.shape[1])
    for i in range(len(indptr) - 1):
        _row_product(indptr, indices, data, i, basis, row)
        for c in range(len(row)):
            out[i, c] = row[c]


def _blocks(x: NDArray[np.float32] | SparseRows) -> Iterator[Block]:
    """First row and CSR parts of blocks of rows: `x` may be a memory map of what does not fit in
    memory.
    """
    if not isinstance(x, np.ndarray):
        for start in range(0, len(x.indptr) - 1, _BLOCK_ROWS):
            indptr = x.indptr[start : start + _BLOCK_ROWS + 1]
            held = slice(int(indptr[0]), int(indptr[-1]))
            data = np.ones(held.stop - held.start, np.float32) if x.data is None else x.data[held]
            yield start, indptr - indptr[0], frozen(x.indices[held]), frozen(data)
        return
    for start in range(0, len(x), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS]
        rows, columns = np.nonzero(block)
        counts = np.bincount(rows, minlength=len(block))
        indptr = np.concatenate([[0], np.cumsum(counts)])
        yield start, indptr, frozen(columns.astype(np.int32)), frozen(block[rows, columns])


def reduce_features(
    x: NDArray[np.float32] | SparseRows,
    num_nodes: int,
    num_features: int,
    dimensions: int,
    progress: Callable[[int, int], None] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Principal coordinates `U S` of the features, not centred, scaled as a whole to mean square 1.

    Subspace iteration with A^T A from a seeded basis of random signs (Halko, Martinsson, Tropp
    2011, algorithm 4.4), then Rayleigh-Ritz; all sums in float64 and in a fixed order. The largest
    entry of each right singular vector is positive. One scale for all columns keeps their
    proportions, as TruncatedSVD's; a column per feature variance would not.

    Parameters
    ----------
    x : f4[N, D] or the rows of a CSR matrix, finite; read front to back eight times, a block of
        rows at a time.
    dimensions : d, at most min(N, D). Columns beyond the rank are zero.
    out : f4[N, d], where the result goes; made here where None.

    Returns
    -------
    f4[N, d]. O(nnz d + D d^2) time an iteration; 32 (d + 16) bytes a feature, and a block of rows.
    """
    if not 1 <= dimensions <= min(num_nodes, num_features):
        raise ValueError(
            f"expected 1 to {min(num_nodes, num_features)} dimensions, found {dimensions}"
        )
    width = min(dimensions + _OVERSAMPLE, num_nodes, num_features)
    signs = np.random.default_rng(_SEED).integers(0, 2, (width, num_features))
    rows: NDArray[np.float64] = signs.astype(np.float64) * 2 - 1
    orthonormalise(rows)
    for iteration in range(_ITERATIONS):
        image = _gram(x, rows)
        if iteration == _ITERATIONS - 1:
            break
        rows = image
        orthonormalise(rows)
        if progress is not None:
            progress(iteration + 1, _ITERATIONS)
    # Even the small products stay off the BLAS: `@` may round differently on the next machine.
    values, turns = eigh(_symmetric(_product(rows, image)))
    vectors = _product(turns[:dimensions], np.ascontiguousarray(rows.T))
    largest = vectors[np.arange(dimensions), np.abs(vectors).argmax(axis=1)]
    vectors *= np.where(largest < 0, -1.0, 1.0)[:, None]
    energy = _sum(np.maximum(values[:dimensions], 0.0))
    scale = np.sqrt(num_nodes * dimensions / energy) if energy > 0 else 1.0
    basis = np.ascontiguousarray((vectors * scale).T)
    reduced = np.empty((num_nodes, dimensions), np.float32) if out is None else out
    for start, indptr, indices, data in _blocks(x):
        _project(indptr, indices, data, basis, reduced[start : start + len(indptr) - 1])
    if progress is not None:
        progress(_ITERATIONS, _ITERATIONS)
    return reduced


def _gram(x: NDArray[np.float32] | SparseRows, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """A^T A applied to each row of `rows` f8[k, D]; same shape."""
    basis = np.ascontiguousarray(rows.T)
    out = np.zeros_like(basis)
    for _, indptr, indices, data in _blocks(x):
        _add_gram(indptr, indices, data, basis, out)
    return np.ascontiguousarray(out.T)


@njit(cache=True)
def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """A b^T in a fixed order. a : f8[m, n]; b : f8[k, n]."""
    out = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            total = 0.0
            for c in range(a.shape[1]):
                total += a[i, c] * b[j, c]
            out[i, j] = total
    return out


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ascontiguousarray((matrix + matrix.T) / 2)


@njit(cache=True)
def _sum(values: NDArray[np.float64]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total
