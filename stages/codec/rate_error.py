"""How much of a code's error is left after mean aggregation, and how much the graph itself averages
out.

A code's error counts after the first layers of a network have averaged it over neighbours; errors
that neighbours share do not average out, so it is measured and not derived from the error of single
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.splitmix import GOLDEN
from stockpot.stages.kernels.splitmix_kernel import mix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.codec.rate_sample import Sample

__all__ = ["mean_rows", "nmse_by_depth", "propagated", "random_signs", "sensitivity"]

SIGNS = 64
"""Columns of random signs; the relative deviation of a mean square over n nodes is about (n SIGNS /
2)^-1/2."""


@njit(cache=True, nogil=True)
def mean_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    hops_left: NDArray[np.uint8],
    depth: int,
    x: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Row i of `out` = mean of `x` over the neighbours of i, zeros where there are none.

    Rows short of `depth` hops are left. indptr, indices : CSR of n rows. x, out : f4[n, d],
    different arrays. O(entries d), summed in the order of the entries.
    """
    for i in range(len(indptr) - 1):
        if hops_left[i] < depth:
            continue
        row = out[i]
        row[:] = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            other = x[indices[e]]
            for j in range(len(row)):
                row[j] += other[j]
        if indptr[i + 1] > indptr[i]:
            share = np.float32(1.0) / np.float32(indptr[i + 1] - indptr[i])
            for j in range(len(row)):
                row[j] *= share


def propagated(sample: Sample, x: NDArray[np.float32], layers: int) -> NDArray[np.float32]:
    """Features of the outputs after 0, 1, ..., `layers` mean aggregations.

    Parameters
    ----------
    x : f4[n, d], features of the sample's nodes; overwritten.

    Returns
    -------
    f4[layers + 1, outputs, d]. Beside it and `x` another array as `x` is held.
    """
    outputs = sample.outputs
    found = np.empty((layers + 1, len(outputs), x.shape[1]), np.float32)
    found[0] = x[outputs]
    here, there = x, np.empty_like(x)
    for depth in range(1, layers + 1):
        mean_rows(sample.indptr, sample.indices, sample.hops_left, depth, here, there)
        found[depth] = there[outputs]
        here, there = there, here
    return found


@njit(cache=True, nogil=True)
def _squares(
    x: NDArray[np.float32], y: NDArray[np.float32], mean: NDArray[np.float64]
) -> tuple[float, float]:
    error = energy = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = np.float64(x[i, j])
            e, c = value - np.float64(y[i, j]), value - mean[j]
            error += e * e
            energy += c * c
    return error, energy


def nmse_by_depth(exact: NDArray[np.float32], decoded: NDArray[np.float32]) -> list[float]:
    """Error energy over centred energy after each number of aggregations.

    Parameters
    ----------
    exact, decoded : f4[layers + 1, outputs, d], as `propagated` makes them.

    Returns
    -------
    layers + 1 shares; 0 where nothing varies and nothing is lost, infinite where nothing varies and
    something is.
    """
    shares = []
    for x, y in zip(exact, decoded, strict=True):
        error, energy = _squares(x, y, x.mean(axis=0, dtype=np.float64))
        shares.append(error / energy if energy > 0 else float("inf") if error > 0 else 0.0)
    return shares


@njit(cache=True)
def _fill_signs(n_id: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    for i in range(len(n_id)):
        word = mix64(np.uint64(n_id[i]) + np.uint64(GOLDEN))
        for j in range(out.shape[1]):
            out[i, j] = 1.0 if (word >> np.uint64(j)) & np.uint64(1) else -1.0


def random_signs(n_id: NDArray[np.int64]) -> NDArray[np.float32]:
    """f4[n, SIGNS] of +-1, a function of the node's id alone."""
    signs = np.empty((len(n_id), SIGNS), np.float32)
    _fill_signs(n_id, signs)
    return signs


def sensitivity(sample: Sample, x: NDArray[np.float32], layers: int) -> list[float]:
    """Chat_1, ..., Chat_layers: scale of uncorrelated errors over scale of the features after so
    many aggregations.

    Rows of both have norm 1 at the start (rows of zeros stay zeros), scale is the root of the mean
    square over the outputs (BiFeat, arXiv 2207.14696, lemma 1.6). 1 for a network that aggregates
    nothing; the smaller, the coarser a code the graph forgives.

    Parameters
    ----------
    x : f4[n, d], features of the sample's nodes; overwritten.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    x /= np.where(norms > 0, norms, 1.0).astype(np.float32)[:, None]
    features = _energies(propagated(sample, x, layers), np.mean(norms[sample.outputs] > 0))
    errors = _energies(propagated(sample, random_signs(sample.n_id), layers), float(SIGNS))
    return [
        float(np.sqrt(e / f)) if f > 0 else 1.0
        for e, f in zip(errors[1:], features[1:], strict=True)
    ]


def _energies(found: NDArray[np.float32], unit: float) -> list[float]:
    """Mean square of the rows at each depth, in units of `unit`."""
    return [
        float(np.einsum("ij,ij->", f, f, dtype=np.float64)) / len(f) / unit if unit > 0 else 0.0
        for f in found
    ]
