"""Products of a graph's matrix with some columns of its features: M x, M (M x), and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.threads import by_workers
from stockpot.stages.pack.layers import scales

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.pack.layers import Weights

__all__ = ["Propagation"]

_ROWS = 4096
"""Rows that a thread computes at a time."""


@njit(cache=True, nogil=True)
def _product(
    start: int,
    stop: int,
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    weight: NDArray[np.float32],
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    loops: bool,
    x: NDArray[np.float32],
    home: NDArray[np.float32],
    alpha: float,
    out: NDArray[np.float32],
) -> None:
    """Rows `start` to `stop` of out = M x, M_ij = left_i right_j w_ij, summed in float64; of
    (1 - alpha) M x + alpha home where `home` has rows.
    """
    returns = len(home) > 0
    weighted = weight.size > 0
    total = np.empty(x.shape[1], np.float64)
    for i in range(start, stop):
        for c in range(total.size):
            total[c] = right[i] * x[i, c] if loops else 0.0
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            value = np.float64(right[j])
            if weighted:
                value *= weight[k]
            for c in range(total.size):
                total[c] += value * x[j, c]
        for c in range(total.size):
            value = left[i] * total[c]
            out[i, c] = (1.0 - alpha) * value + alpha * home[i, c] if returns else value


class Propagation:
    """A matrix M of a graph, to multiply features by; M is never held, only its two factors.

    Parameters
    ----------
    how : which matrix: `Weights` of the whole graph.
    indptr, indices : i8[N + 1], i4[E], row = destination, no self-loops; may be memory maps.
    weight : f4[E], used by "norm"; None where edges have none.
    """

    def __init__(
        self,
        how: Weights,
        indptr: NDArray[np.integer[Any]],
        indices: NDArray[np.integer[Any]],
        weight: NDArray[np.float32] | None = None,
    ) -> None:
        from stockpot.stages.ingest.csr import row_sums

        if how.adj != "norm":
            weight = None
        deg = np.diff(indptr) if weight is None else row_sums(indptr, weight)
        self._left, self._right = scales(how, indptr.size - 1, indptr, deg, weight)
        self._weight = frozen(np.zeros(0, np.float32) if weight is None else weight)
        self._indptr, self._indices = frozen(indptr), frozen(indices)
        self._loops = how.loops

    def times(
        self,
        x: NDArray[np.float32],
        out: NDArray[np.float32],
        threads: int,
        home: NDArray[np.float32] | None = None,
        alpha: float = 0.0,
    ) -> None:
        """Write M x to `out`, f4[N, columns] both; (1 - alpha) M x + alpha home where a `home`
        f4[N, columns] is given.

        Every row is summed in float64, the diagonal first, then its columns in order, and rounded
        once, so that threads change nothing. O(E columns) time, no memory beside.
        """
        rows = len(x)
        back = np.zeros((0, 0), np.float32) if home is None else home

        def work(worker: int, workers: int) -> None:
            for start in range(worker * _ROWS, rows, workers * _ROWS):
                _product(
                    start,
                    min(start + _ROWS, rows),
                    self._indptr,
                    self._indices,
                    self._weight,
                    self._left,
                    self._right,
                    self._loops,
                    x,
                    back,
                    alpha,
                    out,
                )

        by_workers(work, threads)

    def hops(
        self,
        x: NDArray[np.float32],
        count: int,
        threads: int,
        done: Callable[[int, NDArray[np.float32]], None],
        home: NDArray[np.float32] | None = None,
        alpha: float = 0.0,
    ) -> None:
        """Call `done(h, M^h x)` for h = 1 to `count`; `x` f4[N, columns] is overwritten.

        With `home`, f4[N, columns], `done(h, Z_h)`: Z_0 = x, Z_h = (1 - alpha) M Z_(h-1) + alpha
        home, the iteration of personalised PageRank (arXiv 1810.05997, equation 5).

        One more array of its size is held, and what `done` is given is overwritten by the next.
        """
        out = np.empty_like(x)
        for hop in range(1, count + 1):
            self.times(x, out, threads, home, alpha)
            done(hop, out)
            x, out = out, x
