"""Binary rows packed and unpacked without loss, in one pass, in the same order on any machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "first_unfit",
    "pack_ids",
    "pack_values",
    "scatter",
    "scatter_values",
    "squared_error",
    "unpack",
]


@njit(cache=True, nogil=True)
def pack_ids(indptr: NDArray[np.int64], indices: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
    """Set bit `indices[k]` of row i for every k of that row.

    Parameters
    ----------
    indptr : i8[n + 1], indices : i4[nnz], column ids below 8 * out.shape[1].
    out : u1[n, row_bytes], zeros on entry.
    """
    for i in range(indptr.size - 1):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            out[i, j >> 3] |= np.uint8(1 << (j & 7))


@njit(cache=True, nogil=True)
def unpack(codes: NDArray[np.uint8], rows: NDArray[np.int32], out: NDArray[np.float32]) -> None:
    """Write the bits of row i of `codes` (u1[n, row_bytes]) as 0.0 and 1.0 to `out[rows[i]]` (f4[m,
    num_features]).
    """
    columns = out.shape[1]
    whole = columns >> 3
    for i in range(codes.shape[0]):
        row = out[rows[i]]
        for b in range(whole):
            value = codes[i, b]
            for s in range(8):
                row[8 * b + s] = np.float32((value >> s) & 1)
        for j in range(8 * whole, columns):
            row[j] = np.float32((codes[i, whole] >> (j & 7)) & 1)


@njit(cache=True, nogil=True)
def scatter(
    indptr: NDArray[np.integer[Any]],
    ids: NDArray[np.unsignedinteger[Any]],
    index_bytes: int,
    rows: NDArray[np.int32],
    out: NDArray[np.float32],
) -> int:
    """Write rows given by the ids of their ones to `out[rows[i]]`; `indptr` counts bytes.

    Returns
    -------
    The first row with an id outside the columns, -1 where there is none.
    """
    for i in range(indptr.size - 1):
        row = out[rows[i]]
        row[:] = 0.0
        for k in range(indptr[i] // index_bytes, indptr[i + 1] // index_bytes):
            if ids[k] >= row.size:
                return i
            row[ids[k]] = 1.0
    return -1


@njit(cache=True, nogil=True)
def pack_values(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.uint32],
    index_bytes: int,
    out: NDArray[np.uint8],
) -> None:
    """Write row after row: its values, little-endian, then the ids of their columns.

    Parameters
    ----------
    indptr : i8[n + 1]. indices : i4[nnz]. values : the bits of f4[nnz].
    out : u1[nnz (4 + index_bytes)].
    """
    for i in range(indptr.size - 1):
        start, count = indptr[i], indptr[i + 1] - indptr[i]
        at = start * (4 + index_bytes)
        for k in range(count):
            for b in range(4):
                out[at + 4 * k + b] = np.uint8(
                    (values[start + k] >> np.uint32(8 * b)) & np.uint32(255)
                )
        at += 4 * count
        for k in range(count):
            for b in range(index_bytes):
                out[at + index_bytes * k + b] = np.uint8((indices[start + k] >> (8 * b)) & 255)


@njit(cache=True, nogil=True)
def scatter_values(
    indptr: NDArray[np.integer[Any]],
    codes: NDArray[np.uint8],
    index_bytes: int,
    rows: NDArray[np.int32],
    out: NDArray[np.uint32],
) -> int:
    """Write rows of `pack_values` as bits of fp32 to `out[rows[i]]`; `indptr` counts bytes.

    Returns
    -------
    The first row with an id outside the columns, -1 where there is none.
    """
    for i in range(indptr.size - 1):
        row = out[rows[i]]
        row[:] = 0
        at = indptr[i]
        count = (indptr[i + 1] - at) // (4 + index_bytes)
        ids = at + 4 * count
        for k in range(count):
            column, value = np.int64(0), np.uint32(0)
            for b in range(index_bytes):
                column |= np.int64(codes[ids + index_bytes * k + b]) << (8 * b)
            for b in range(4):
                value |= np.uint32(codes[at + 4 * k + b]) << np.uint32(8 * b)
            if column >= row.size:
                return i
            row[column] = value
    return -1


@njit(cache=True, nogil=True)
def first_unfit(values: NDArray[np.float32], limit: float) -> int:
    """Position in f4[n] of the first value beyond +-limit or not finite; -1 where there is none."""
    for k in range(values.size):
        if not abs(values[k]) <= limit:
            return k
    return -1


@njit(cache=True, nogil=True)
def squared_error(values: NDArray[np.float32], decoded: NDArray[np.float32]) -> tuple[float, float]:
    """(sum of (x - decoded)^2, sum of x^2) of two f4[n], summed in order so that every machine gets
    the same bits.
    """
    error = 0.0
    total = 0.0
    for k in range(values.size):
        x = np.float64(values[k])
        d = x - np.float64(decoded[k])
        error += d * d
        total += x * x
    return error, total
