"""Scalar codes: K bits a column between thresholds of its own, and the exact sums that recalibrate
their levels.

Sums are kept in integers, multiples of a power of two a column: they are the same in any order and
for any chunking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec.row_blocks import BLOCK_ROWS
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["encode_scalar", "thresholds"]


def thresholds(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """f4[D, L - 1], halfway between neighbours of `levels`, f4[D, L] ascending; a value above t has
    a level above t.
    """
    wide = levels.astype(np.float64)
    return ((wide[:, 1:] + wide[:, :-1]) / 2).astype(np.float32)


@njit(cache=True, nogil=True)
def encode_scalar(
    x: NDArray[np.float32],
    limits: NDArray[np.float32],
    shift: NDArray[np.float32],
    scale: NDArray[np.float64],
    codes: NDArray[np.uint8],
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    energy: NDArray[np.float64],
) -> None:
    """Codes of rows, and the sums and counts of each level's values, added to what is there.

    Parameters
    ----------
    x : f4[n, D], finite.
    limits : f4[D, L - 1], ascending; L = 2, 4, 16 or 256. Level of x: how many limits are below it.
    shift, scale : f4, f8[D]; sums are of round((x - shift) * scale).
    codes : u1[n, ceil(D bits / 8)], zeros on entry.
    sums, counts : i8[D, L].
    energy : f8[ceil(n / BLOCK_ROWS), D], sum of (x - shift)^2 of each block of rows.
    """
    columns, levels = x.shape[1], limits.shape[1] + 1
    bits = 0
    while (1 << bits) < levels:
        bits += 1
    per_byte = 8 // bits
    for i in range(x.shape[0]):
        for j in range(columns):
            value = x[i, j]
            code, step = 0, levels >> 1
            while step:
                if value > limits[j, code + step - 1]:
                    code += step
                step >>= 1
            codes[i, j // per_byte] |= np.uint8(code << (bits * (j % per_byte)))
            centred = np.float64(value) - np.float64(shift[j])
            energy[i // BLOCK_ROWS, j] += centred * centred
            sums[j, code] += np.int64(np.rint(centred * scale[j]))
            counts[j, code] += 1
