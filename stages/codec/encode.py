"""Rows become exact codes, or half floats; what a codec cannot hold is refused by row and
column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec import bits
from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.codec.format import Codec

__all__ = ["are_halves", "encode"]

FP16_MAX = 65504.0


def encode(
    codec: Codec,
    features: Features,
    made: Callable[[tuple[int, int]], NDArray[np.uint8]] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, float]:
    """Codes of all rows.

    Parameters
    ----------
    made : gives the array that codes of rows of one length are written to, u1 of the shape asked
        for; one in memory where None. Not asked where the codes are the features' own bytes.

    Returns
    -------
    codes : u1[N, row_bytes], or u1[total] where rows vary in length.
    code_indptr : i8[N + 1], first byte of each row, or None where rows are of one length.
    nmse : squared error of the decoded matrix over its squared norm; 0 where the codec is exact.

    Raises
    ------
    BadInput
        A value the codec cannot hold (fp16: beyond +-65504).
    """
    if codec.name == "fp32" and features.x is not None and not features.more:
        values = np.ascontiguousarray(features.x, dtype="<f4")
        return (
            values.view(np.uint8).reshape(features.num_rows, 4 * features.num_features),
            None,
            0.0,
        )
    if codec.name == "lossless-bits":
        assert codec.row_bytes is not None
        packed = np.zeros((features.num_rows, codec.row_bytes), np.uint8)
        bits.pack_ids(*features.ones(), packed)
        return packed, None, 0.0
    if codec.name == "lossless-sparse":
        assert codec.index_bytes is not None
        indptr, indices = features.ones()
        ids = indices.astype("<u2" if codec.index_bytes == 2 else "<u4")
        return ids.view(np.uint8), indptr * codec.index_bytes, 0.0
    if codec.name == "lossless-values":
        assert codec.index_bytes is not None
        indptr, indices, values = features.nonzeros()
        found = np.empty(indices.size * codec.entry_bytes, np.uint8)
        bits.pack_values(indptr, indices, values.view(np.uint32), codec.index_bytes, found)
        return found, indptr * codec.entry_bytes, 0.0
    kind = np.dtype("<f4" if codec.name == "fp32" else "<f2")
    shape = (features.num_rows, kind.itemsize * features.num_features)
    codes = np.empty(shape, np.uint8) if made is None else made(shape)
    out = codes.view(kind)
    error = total = 0.0
    for first, block in features.chunks():
        target = out[first : first + len(block)]
        if codec.name == "fp16":
            _fits(block, first)
            target[:] = block
            e, t = bits.squared_error(block.reshape(-1), target.reshape(-1).astype(np.float32))
            error, total = error + e, total + t
        else:
            target[:] = block
    return codes, None, error / total if total else 0.0


def are_halves(features: Features) -> bool:
    """Whether every value is a half float, bit for bit: one pass that ends at the first that is
    none.
    """
    with np.errstate(over="ignore"):
        return all(
            np.array_equal(
                block.astype(np.float16).astype(np.float32).view(np.uint32), block.view(np.uint32)
            )
            for _, block in features.chunks()
        )


def _fits(block: NDArray[np.float32], first: int) -> None:
    k = bits.first_unfit(block.reshape(-1), FP16_MAX)
    if k >= 0:
        row, column = divmod(int(k), block.shape[1])
        raise BadInput(
            f"features.codec fp16: expected values within +-{FP16_MAX:.0f}, "
            f"found {block[row, column]:g} at node {first + row}, column {column}",
            fix="scale the features, or --set features.codec=fp32",
        )
