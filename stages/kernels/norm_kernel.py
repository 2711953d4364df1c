"""LayerNorm, ReLU and dropout of a matrix in one pass forward and one backward, compiled; oracle:
torch's operators.

A row is read once, and stays in the cache until its result is written. No mask is kept for the way
back: the result is greater than 0 exactly where an element passed both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.splitmix_kernel import mix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK", "backward", "forward", "keep_mask"]

BLOCK = 128
"""Rows whose column sums are added on their own: the sums are the same for any number of threads.
"""

_SUM = {"contract", "reassoc", "nsz"}


@njit(cache=True, nogil=True)
def _draw(words: NDArray[np.uint64], seed: np.uint64, row: int) -> None:
    """Random bytes of one row: splitmix64 at the places `row * words.size` on of the stream of
    `seed`.
    """
    first = np.uint64(row) * np.uint64(words.size)
    for w in range(words.size):
        words[w] = mix64(seed + (first + np.uint64(w)) * np.uint64(0x9E3779B97F4A7C15))


@njit(cache=True, nogil=True)
def keep_mask(
    start: int, stop: int, seed: np.uint64, threshold: int, mask: NDArray[np.uint8]
) -> None:
    """Rows start..stop of u1[rows, dim]: 1 where an element is kept, with probability 1 -
    threshold / 256.
    """
    dim = mask.shape[1]
    words = np.empty((dim + 7) // 8, np.uint64)
    random = words.view(np.uint8)
    for i in range(start, stop):
        _draw(words, seed, i)
        for j in range(dim):
            mask[i, j] = random[j] >= threshold


@njit(cache=True, nogil=True, fastmath=_SUM, error_model="numpy")
def forward(
    start: int,
    stop: int,
    x: NDArray[Any],
    shift: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any],
    eps: float,
    seed: np.uint64,
    threshold: int,
    mean: NDArray[Any],
    rstd: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """Rows start..stop of `out`: max(0, (x + shift - mean) rstd weight + bias) where the mask keeps
    them.

    Parameters
    ----------
    x, out : f[rows, dim], of one type, which is that of all.
    shift : f[dim]. weight, bias : f[dim], with the factor of what is kept.
    mean, rstd : f[rows], filled: mean and 1 / sqrt(variance + eps) of every row.
    """
    dim = x.shape[1]
    kind = x.dtype.type
    zero, count = kind(0), kind(dim)
    words = np.zeros((dim + 7) // 8, np.uint64)
    random, least = words.view(np.uint8), np.uint8(threshold)
    for i in range(start, stop):
        total = zero
        for j in range(dim):
            total += x[i, j] + shift[j]
        middle = total / count
        square = zero
        for j in range(dim):
            far = x[i, j] + shift[j] - middle
            square += far * far
        scale = kind(1) / np.sqrt(square / count + kind(eps))
        mean[i], rstd[i] = middle, scale
        if threshold:
            _draw(words, seed, i)
        for j in range(dim):
            value = (x[i, j] + shift[j] - middle) * scale * weight[j] + bias[j]
            # what is no number passes, so that a loss that is none is seen
            out[i, j] = zero if (random[j] < least) | (value <= zero) else value


@njit(cache=True, nogil=True, fastmath=_SUM, error_model="numpy")
def backward(
    start: int,
    stop: int,
    grad: NDArray[Any],
    x: NDArray[Any],
    shift: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    mean: NDArray[Any],
    rstd: NDArray[Any],
    dx: NDArray[Any],
    sums: NDArray[Any],
) -> None:
    """Gradients of `forward`, of blocks start..stop of `BLOCK` rows.

    Parameters
    ----------
    grad, x, out : f[rows, dim]; `out` is 0 or less exactly where an element did not pass.
    dx : f[rows, dim], filled.
    sums : f[blocks, 3, dim], filled: what each block adds to the gradients of weight and bias,
        without the factor, and to that of shift.
    """
    rows, dim = x.shape
    kind = x.dtype.type
    zero, count = kind(0), kind(dim)
    for b in range(start, stop):
        sums[b] = zero
        for i in range(b * BLOCK, min(rows, (b + 1) * BLOCK)):
            middle, scale = mean[i], rstd[i]
            first, second = zero, zero
            for j in range(dim):
                passed = zero if out[i, j] <= zero else grad[i, j]
                normal = (x[i, j] + shift[j] - middle) * scale
                first += passed * weight[j]
                second += passed * weight[j] * normal
                sums[b, 0, j] += passed * normal
                sums[b, 1, j] += passed
            first, second = first / count, second / count
            for j in range(dim):
                passed = zero if out[i, j] <= zero else grad[i, j]
                normal = (x[i, j] + shift[j] - middle) * scale
                value = scale * (passed * weight[j] - first - normal * second)
                dx[i, j] = value
                sums[b, 2, j] += value
