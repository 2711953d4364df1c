"""Poisson probabilities of LABOR (Balin & Çatalyürek, arXiv 2210.13339): c_s of every row, pi_t of
every source.

Edge t -> s is taken where r_t <= p_ts, with one r_t for all rows: p_ts = min(1, c_s A_ts) in
LABOR-0, min(1, c_s pi_t) after updates of pi, the first of which takes A in. Row by row the mean
over taken edges, each weighted by A / p, must vary as little as that of k neighbours drawn without
replacement:

    sum over t of A_ts^2 / p_ts = (sum A)^2 (1/k - 1/d) + sum A^2            (d^2 / k without
    weights)

and pi makes the expected number of distinct sources small under that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONVERGED", "ROUNDS", "expected", "importances", "row_scale"]

CONVERGED = 1e-4  # of LABOR-*: relative change of the expected number of sources
ROUNDS = 50  # most updates of LABOR-*; published: 15 in practice, seen: 18


@njit(cache=True, nogil=True)
def row_scale(
    start: int,
    stop: int,
    at: int,
    weight: NDArray[np.float32],
    slot: NDArray[np.int32],
    pi: NDArray[np.float64],
    k: int,
) -> float:
    """c_s of one row of d = stop - start entries: exact, monotone from below, at most d + 1 passes.

    Parameters
    ----------
    start, stop : its entries of the graph; `weight` : f4[E], or empty where all are 1.
    at : its first entry of `slot`, the place of each source in `pi`.
    pi : f8[T] > 0, or empty in LABOR-0.
    k : neighbours wanted; negative: all.

    Returns
    -------
    c > 0; where k >= d the least c that takes every entry. 0 for an empty row, or one whose weights
    are all 0. Entries of weight 0 are never taken and do not count.

    Notes
    -----
    With the saturated entries (p = 1) fixed the target is linear in 1/c. Its root never exceeds the
    solution, so starting with none saturated, the set only grows; rounding may not shrink it again.
    """
    d = stop - start
    if d == 0:
        return 0.0
    if weight.size == 0 and pi.size == 0:
        return 1.0 if k < 0 or k >= d else k / d
    total = 0.0
    square = 0.0
    least = np.inf
    d = 0
    for e in range(stop - start):
        a = float(weight[start + e]) if weight.size else 1.0
        if a > 0.0:
            d += 1
            total += a
            square += a * a
            least = min(least, pi[slot[at + e]] if pi.size else a)
    if d == 0:
        return 0.0
    if k < 0 or k >= d:
        return 1.0 / least
    target = total * total * (1.0 / k - 1.0 / d) + square
    c = 0.0
    saturated = -1
    while True:
        fixed = 0.0
        free = 0.0
        found = 0
        for e in range(stop - start):
            a = float(weight[start + e]) if weight.size else 1.0
            if a > 0.0:
                w = pi[slot[at + e]] if pi.size else a
                if c * w >= 1.0:
                    fixed += a * a
                    found += 1
                else:
                    free += a * a / w
        if found <= saturated or free == 0.0:
            return c
        saturated = found
        c = free / (target - fixed)


@njit(cache=True, nogil=True)
def importances(
    indptr: NDArray[np.int64],
    weight: NDArray[np.float32],
    rows: NDArray[np.int32],
    k: int,
    updates: int,
    slot: NDArray[np.int32],
    c: NDArray[np.float64],
    pi: NDArray[np.float64],
) -> int:
    """Find c of every row and pi of every source after updates pi_t <- pi_t max over s of c_s
    (first: of c_s A_ts).

    Parameters
    ----------
    rows : i4[R], the vertices whose in-edges are sampled.
    k, updates : neighbours wanted; updates, or -1, LABOR-*: until the expected number of sources is
        steady.
    slot : i4[entries of the rows], place of each entry's source among the T sources.
    c, pi : f8[R], f8[T], filled.

    Returns
    -------
    updates made. O(entries of the rows) each, times the passes of `row_scale`.
    """
    pi[:] = 1.0
    best = np.empty(pi.size, np.float64)
    before = np.inf
    done = 0
    while True:
        at = 0
        for i in range(rows.size):
            start, stop = indptr[rows[i]], indptr[rows[i] + 1]
            c[i] = row_scale(start, stop, at, weight, slot, pi if done else pi[:0], k)
            at += stop - start
        if done in (updates, ROUNDS):
            return done
        best[:] = 0.0
        at = 0
        for i in range(rows.size):
            start, stop = indptr[rows[i]], indptr[rows[i] + 1]
            for e in range(stop - start):
                a = float(weight[start + e]) if weight.size and done == 0 else 1.0
                best[slot[at + e]] = max(best[slot[at + e]], c[i] * a)
            at += stop - start
        now = 0.0
        for t in range(pi.size):
            now += min(1.0, pi[t] * best[t])
        if updates < 0 and abs(before - now) <= CONVERGED * now:
            return done
        before = now
        for t in range(pi.size):
            if best[t] > 0.0:
                pi[t] *= best[t]
        done += 1


@njit(cache=True, nogil=True)
def expected(
    indptr: NDArray[np.int64],
    weight: NDArray[np.float32],
    rows: NDArray[np.int32],
    slot: NDArray[np.int32],
    c: NDArray[np.float64],
    pi: NDArray[np.float64],
) -> float:
    """Sum over sources of max over s of p_ts, the expected number of them; `pi` empty in
    LABOR-0.
    """
    best = np.zeros(slot.max() + 1, np.float64)
    at = 0
    for i in range(rows.size):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        for e in range(stop - start):
            a = float(weight[start + e]) if weight.size and pi.size == 0 else 1.0
            best[slot[at + e]] = max(best[slot[at + e]], c[i] * a)
        at += stop - start
    return float(np.minimum(1.0, best * pi if pi.size else best).sum())
