"""Exact sums of coded rows: integers for what tables are made of, floats by whole blocks of rows
for figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec.row_blocks import BLOCK_ROWS
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["misfit", "tally"]


def tally(
    x: NDArray[np.float32],
    ids: NDArray[np.uint32],
    edges: NDArray[np.int64],
    shift: NDArray[np.float32],
    scale: NDArray[np.float64],
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    energy: NDArray[np.float64],
) -> None:
    """Add coded rows to what `stockpot.stages.codec.coder.Sums` holds.

    Parameters
    ----------
    x : f4[n, D]. ids : u4[n, parts], below K. edges : i8[parts + 1], columns of each part.
    sums : i8[D, K]. counts : i8[parts, K]. energy : f8[ceil(n / BLOCK_ROWS), D].
    """
    # Entry by entry here: a row adds to neighbouring places.
    turned = np.zeros(sums.shape[::-1], np.int64)
    _tally(x, ids, edges, shift, scale, turned, counts, energy)
    sums += turned.T


@njit(cache=True, nogil=True)
def _tally(
    x: NDArray[np.float32],
    ids: NDArray[np.uint32],
    edges: NDArray[np.int64],
    shift: NDArray[np.float32],
    scale: NDArray[np.float64],
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    energy: NDArray[np.float64],
) -> None:
    for i in range(x.shape[0]):
        square = energy[i // BLOCK_ROWS]
        for u in range(ids.shape[1]):
            k = ids[i, u]
            counts[u, k] += 1
            total = sums[k]
            for j in range(edges[u], edges[u + 1]):
                centred = np.float64(x[i, j]) - np.float64(shift[j])
                square[j] += centred * centred
                total[j] += np.int64(np.rint(centred * scale[j]))


@njit(cache=True, nogil=True)
def misfit(
    x: NDArray[np.float32], decoded: NDArray[np.float32], error: NDArray[np.float64]
) -> None:
    """Add the squared distance of rows f4[n, D] and what they decode to, to `error`, f8[ceil(n /
    BLOCK_ROWS)].
    """
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            d = np.float64(x[i, j]) - np.float64(decoded[i, j])
            error[i // BLOCK_ROWS] += d * d
