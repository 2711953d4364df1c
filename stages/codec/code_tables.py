"""Kernels that read additive codes; sums in the order of the codes, so that every machine gets the
same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SET_EVEN", "add_stages", "set_parts"]

WIDTHS = (1, 2, 4, 8, 16, 32)


def _setter(width: int) -> Any:
    # A width the compiler knows is twice to six times as fast as one in a register.
    @njit(cache=True, nogil=True)
    def set_even(
        ids: NDArray[np.uint8],
        rows: NDArray[np.int32],
        values: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None:
        for i in range(ids.shape[0]):
            row, mine = out[rows[i]], ids[i]
            for u in range(mine.size):
                at = width * (256 * u + mine[u])
                for j in range(width):
                    row[width * u + j] = values[at + j]

    return set_even


SET_EVEN = {width: _setter(width) for width in WIDTHS}
"""By width: `(ids u1[n, units], rows i4[n], values f4[units * 256 * width], out f4[m, D])` sets the
first units * width columns of `out[rows[i]]`: code u to `width` columns, its table `values[256 *
width * u ...]`."""


@njit(cache=True, nogil=True)
def set_parts(
    ids: NDArray[np.unsignedinteger[Any]],
    rows: NDArray[np.int32],
    lo: NDArray[np.int64],
    hi: NDArray[np.int64],
    offset: NDArray[np.int64],
    values: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Tables that share no column: set `out[rows[i]]` to the table rows that `ids` (u1|u2|u4[n,
    units]) choose.
    """
    for i in range(ids.shape[0]):
        row = out[rows[i]]
        for u in range(lo.size):
            start = lo[u]
            width = hi[u] - start
            at = offset[u] + width * int(ids[i, u])
            whole = width - width % 8
            for j in range(0, whole, 8):
                for k in range(8):
                    row[start + j + k] = values[at + j + k]
            for j in range(whole, width):
                row[start + j] = values[at + j]


@njit(cache=True, nogil=True)
def add_stages(
    ids: NDArray[np.uint8],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Tables of all columns: the sum of the table rows chosen. values : f4[units * 256 * D], D =
    out.shape[1].

    Four stages are added at a time, each element in their order.
    """
    width, units = out.shape[1], ids.shape[1]
    stage = 256 * width
    for i in range(ids.shape[0]):
        row, mine = out[rows[i]], ids[i]
        at = width * int(mine[0])
        first = values[at : at + width]
        done = 1
        if units >= 4:
            at = stage + width * int(mine[1])
            second = values[at : at + width]
            at = 2 * stage + width * int(mine[2])
            third = values[at : at + width]
            at = 3 * stage + width * int(mine[3])
            fourth = values[at : at + width]
            for j in range(width):
                row[j] = ((first[j] + second[j]) + third[j]) + fourth[j]
            done = 4
        else:
            for j in range(width):
                row[j] = first[j]
        while done + 4 <= units:
            at = done * stage + width * int(mine[done])
            first = values[at : at + width]
            at = (done + 1) * stage + width * int(mine[done + 1])
            second = values[at : at + width]
            at = (done + 2) * stage + width * int(mine[done + 2])
            third = values[at : at + width]
            at = (done + 3) * stage + width * int(mine[done + 3])
            fourth = values[at : at + width]
            for j in range(width):
                row[j] = (((row[j] + first[j]) + second[j]) + third[j]) + fourth[j]
            done += 4
        for u in range(done, units):
            at = u * stage + width * int(mine[u])
            first = values[at : at + width]
            for j in range(width):
                row[j] += first[j]
