"""Feature matrices, dense or sparse, become rows of codes; what a codec cannot hold is refused by row and column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.errors import BadInput
from stages.quantize import bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stages.quantize.codec import Codec

__all__ = ["Features", "encode"]

FP16_MAX = 65504.0
CHUNK_BYTES = 32 << 20
"""Dense values handled at a time; results do not depend on it."""


class Features:
    """Feature rows of a graph, dense or sparse.

    Parameters
    ----------
    num_features : number of columns.
    x : f4[N, D], or None where the features are sparse.
    indptr, indices, data : i8[N + 1], i4[nnz] sorted inside a row, f4[nnz] or None where all are ones.
    """

    def __init__(
        self,
        num_features: int,
        x: NDArray[np.float32] | None = None,
        indptr: NDArray[np.int64] | None = None,
        indices: NDArray[np.int32] | None = None,
        data: NDArray[np.float32] | None = None,
    ) -> None:
        self.num_features, self.x, self.data = num_features, x, data
        self.indptr = np.zeros(1, np.int64) if indptr is None else indptr
        self.indices = np.zeros(0, np.int32) if indices is None else indices
        self.num_rows = len(x) if x is not None else self.indptr.size - 1

    def chunks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Dense rows in order: (first row, f4[rows, D]), at most about `CHUNK_BYTES` at a time."""
        step = max(1, CHUNK_BYTES // (4 * max(1, self.num_features)))
        for first in range(0, self.num_rows, step):
            last = min(first + step, self.num_rows)
            if self.x is not None:
                yield first, np.ascontiguousarray(self.x[first:last], dtype=np.float32)
                continue
            start, stop = int(self.indptr[first]), int(self.indptr[last])
            rows = np.repeat(np.arange(last - first), np.diff(self.indptr[first : last + 1]))
            block = np.zeros((last - first, self.num_features), np.float32)
            block[rows, self.indices[start:stop]] = 1.0 if self.data is None else self.data[start:stop]
            yield first, block

    def ones(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(indptr i8[N + 1], indices i4[nnz]) of the ones of a binary matrix; stored zeros are left out."""
        if self.x is None and self.data is None:
            return self.indptr, self.indices
        counts, ids = np.zeros(self.num_rows, np.int64), []
        for first, block in self.chunks():
            rows, columns = np.nonzero(block)
            counts[first : first + len(block)] = np.bincount(rows, minlength=len(block))
            ids.append(columns.astype(np.int32))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return indptr, np.concatenate(ids) if ids else np.zeros(0, np.int32)


def encode(codec: Codec, features: Features) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, float]:
    """Codes of all rows.

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
    if codec.name == "fp32" and features.x is not None:
        values = np.ascontiguousarray(features.x, dtype="<f4")
        return values.view(np.uint8).reshape(features.num_rows, 4 * features.num_features), None, 0.0
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
    out = np.empty((features.num_rows, features.num_features), "<f4" if codec.name == "fp32" else "<f2")
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
    codes = out.view(np.uint8).reshape(features.num_rows, out.itemsize * features.num_features)
    return codes, None, error / total if total else 0.0


def _fits(block: NDArray[np.float32], first: int) -> None:
    k = bits.first_unfit(block.reshape(-1), FP16_MAX)
    if k >= 0:
        row, column = divmod(int(k), block.shape[1])
        raise BadInput(
            f"features.codec fp16: expected values within +-{FP16_MAX:.0f}, "
            f"found {block[row, column]:g} at node {first + row}, column {column}",
            fix="scale the features, or set features.codec = 'fp32'",
        )
