"""Nearest centroids and chains of them, the same on any machine: sums in a fixed order, no BLAS.

A row's result depends on that row alone. Products are taken four rows and four columns at a time,
so that a core is bound by its arithmetic; every element is still summed in the order of the
columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["chains", "gram", "nearest", "offsets", "product"]

_TILE = (
    256  # candidates handled together: four rows of scores and of the table stay in the first cache
)
_ROWS = 64  # rows scored together


def offsets(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """f4[K], squared norm of each row of `table`, f4[K, D]."""
    return (table.astype(np.float64) ** 2).sum(1).astype(np.float32)


@njit(cache=True, nogil=True)
def _scores(
    x: NDArray[np.float32],
    turned: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """`out[i, k] = offset[k] - 2 <x[i], turned[:, k]>`. x : f4[n, D]; turned : f4[D, K]; out :
    f4[n, K].
    """
    rows, columns = x.shape
    two = np.float32(2.0)
    for start in range(0, offset.size, _TILE):
        stop = min(start + _TILE, offset.size)
        fit = offset[start:stop]
        for i in range(0, rows - rows % 4, 4):
            o0, o1, o2, o3 = (
                out[i, start:stop],
                out[i + 1, start:stop],
                out[i + 2, start:stop],
                out[i + 3, start:stop],
            )
            o0[:] = fit
            o1[:] = fit
            o2[:] = fit
            o3[:] = fit
            for d in range(0, columns - columns % 4, 4):
                t0, t1, t2, t3 = (
                    turned[d, start:stop],
                    turned[d + 1, start:stop],
                    turned[d + 2, start:stop],
                    turned[d + 3, start:stop],
                )
                a0, a1, a2, a3 = (
                    two * x[i, d],
                    two * x[i, d + 1],
                    two * x[i, d + 2],
                    two * x[i, d + 3],
                )
                b0, b1, b2, b3 = (
                    two * x[i + 1, d],
                    two * x[i + 1, d + 1],
                    two * x[i + 1, d + 2],
                    two * x[i + 1, d + 3],
                )
                c0, c1, c2, c3 = (
                    two * x[i + 2, d],
                    two * x[i + 2, d + 1],
                    two * x[i + 2, d + 2],
                    two * x[i + 2, d + 3],
                )
                e0, e1, e2, e3 = (
                    two * x[i + 3, d],
                    two * x[i + 3, d + 1],
                    two * x[i + 3, d + 2],
                    two * x[i + 3, d + 3],
                )
                for k in range(fit.size):
                    p, q, r, s = t0[k], t1[k], t2[k], t3[k]
                    o0[k] = (((o0[k] - a0 * p) - a1 * q) - a2 * r) - a3 * s
                    o1[k] = (((o1[k] - b0 * p) - b1 * q) - b2 * r) - b3 * s
                    o2[k] = (((o2[k] - c0 * p) - c1 * q) - c2 * r) - c3 * s
                    o3[k] = (((o3[k] - e0 * p) - e1 * q) - e2 * r) - e3 * s
            for d in range(columns - columns % 4, columns):
                t0 = turned[d, start:stop]
                a0, b0, c0, e0 = (
                    two * x[i, d],
                    two * x[i + 1, d],
                    two * x[i + 2, d],
                    two * x[i + 3, d],
                )
                for k in range(fit.size):
                    o0[k] -= a0 * t0[k]
                    o1[k] -= b0 * t0[k]
                    o2[k] -= c0 * t0[k]
                    o3[k] -= e0 * t0[k]
        for i in range(rows - rows % 4, rows):
            o0 = out[i, start:stop]
            o0[:] = fit
            for d in range(columns):
                a0 = two * x[i, d]
                t0 = turned[d, start:stop]
                for k in range(fit.size):
                    o0[k] -= a0 * t0[k]


def product(x: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """f4[n, K], `x matrix` of f4[n, D] and f4[D, K], the same bits on any machine."""
    out = np.empty((len(x), matrix.shape[1]), np.float32)
    # Halves and doubles are exact.
    _scores(
        np.ascontiguousarray(x),
        np.ascontiguousarray(np.float32(-0.5) * matrix),
        np.zeros(matrix.shape[1], np.float32),
        out,
    )
    return out


@njit(cache=True, nogil=True)
def _first_least(scores: NDArray[np.float32]) -> int:
    """Position of the first smallest of f4[K], finite. Compared as ordered integers, which
    vectorises.
    """
    bits = scores.view(np.int32)
    least = np.int32(0x7FFFFFFF)
    for k in range(bits.size):
        b = bits[k]
        least = min(least, b ^ ((b >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    found = least ^ ((least >> np.int32(31)) & np.int32(0x7FFFFFFF))
    k = 0
    while bits[k] != found:
        k += 1
    return k


@njit(cache=True, nogil=True)
def nearest(
    x: NDArray[np.float32],
    turned: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[np.uint32],
) -> None:
    """The k with the least `offset[k] - 2 <x[i], turned[:, k]>`, the first of equals.

    With `offset` the squared norms, the nearest column of `turned`. O(n D K), K floats beside the
    result.

    Parameters
    ----------
    x : f4[n, D], C-contiguous. turned : f4[D, K], C-contiguous. offset : f4[K]. out : u4[n].
    """
    scores = np.empty((_ROWS, offset.size), np.float32)
    for start in range(0, x.shape[0], _ROWS):
        stop = min(start + _ROWS, x.shape[0])
        _scores(x[start:stop], turned, offset, scores)
        for i in range(start, stop):
            out[i] = _first_least(scores[i - start])


def gram(tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice the inner products of each stage's entries with those of the stages before it, for
    `chains`.

    Parameters
    ----------
    tables : f4[M, K, D].

    Returns
    -------
    f4[M (M - 1) / 2, K, K]: block m (m - 1) / 2 + i, row c, column k: of entry c of stage i and
    entry k of stage m > i.
    """
    stages, entries, columns = tables.shape
    out = np.empty((stages * (stages - 1) // 2, entries, entries), np.float32)
    none = np.zeros(entries, np.float32)
    for m in range(1, stages):
        turned = np.ascontiguousarray(-tables[m].T)
        for i in range(m):
            _scores(np.ascontiguousarray(tables[i]), turned, none, out[m * (m - 1) // 2 + i])
    del columns
    return out


@njit(cache=True, nogil=True)
def chains(
    x: NDArray[np.float32],
    turned: NDArray[np.float32],
    offset: NDArray[np.float32],
    products: NDArray[np.float32],
    stages: int,
    width: int,
    out: NDArray[np.uint8],
) -> None:
    """One entry of each stage so that their sum is near the row: a beam search that keeps the
    `width` best chains.

    The inner products of a row with all entries are taken once; those of entries with each other
    come from `products`, so that a wider beam costs additions only.

    Parameters
    ----------
    x : f4[n, D], C-contiguous. turned : f4[D, M K], the stages' entries side by side. offset : f4[M
        K], `offsets`.
    products : `gram` of the tables.
    out : u1[n, M].
    """
    entries = offset.size // stages
    scores = np.empty((_ROWS, offset.size), np.float32)
    sums = np.empty(width * entries, np.float32)
    base, kept = np.zeros(width, np.float32), np.zeros(width, np.float32)
    low = np.zeros(width, np.int64)
    chain, longer = np.zeros((width, stages), np.uint8), np.zeros((width, stages), np.uint8)
    for start in range(0, x.shape[0], _ROWS):
        stop = min(start + _ROWS, x.shape[0])
        _scores(x[start:stop], turned, offset, scores)
        for i in range(start, stop):
            own = scores[i - start]
            alive = 1
            base[0] = np.float32(0.0)
            for m in range(stages):
                stage = own[m * entries : (m + 1) * entries]
                for b in range(alive):
                    mine = sums[b * entries : (b + 1) * entries]
                    before = base[b]
                    for k in range(entries):
                        mine[k] = stage[k] + before
                    for s in range(m):
                        shared = products[m * (m - 1) // 2 + s, chain[b, s]]
                        for k in range(entries):
                            mine[k] += shared[k]
                    low[b] = _first_least(mine)
                parents, alive = alive, min(width, alive * entries)
                for b in range(alive):
                    best = 0
                    for p in range(1, parents):
                        if sums[p * entries + low[p]] < sums[best * entries + low[best]]:
                            best = p
                    mine = sums[best * entries : (best + 1) * entries]
                    kept[b] = mine[low[best]]
                    longer[b, :m] = chain[best, :m]
                    longer[b, m] = low[best]
                    mine[low[best]] = np.float32(np.inf)
                    low[best] = _first_least(mine)
                for b in range(alive):
                    base[b] = kept[b]
                    chain[b, : m + 1] = longer[b, : m + 1]
            out[i] = chain[0]
