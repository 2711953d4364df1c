"""Further stages for some rows: a residual code of what the code of all rows leaves of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.coder import Coder
from stockpot.stages.codec.exact_sums import misfit
from stockpot.stages.codec.format import decode
from stockpot.stages.codec.row_blocks import BLOCK_ROWS, CHUNK_BYTES
from stockpot.stages.kernels.threads import in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.codec.format import Codec

__all__ = ["PREFIX", "Further", "encode_further", "further_coder"]

PREFIX = "tier_"
"""What the names of a tier's arrays begin with in a codebook."""


@dataclass(frozen=True)
class Further:
    """Further stages of some rows, and what they do to the squared error of these.

    Attributes
    ----------
    codec : of all rows, with the further stages in it.
    codes : u1[k, bytes].
    before, after : squared error of these rows without and with them.
    """

    codec: Codec
    codes: NDArray[np.uint8]
    before: float
    after: float


def further_coder(name: str, fitted: Mapping[str, NDArray[Any]]) -> Coder:
    """The coder of a tier from the arrays of a codebook."""
    return Coder(
        name,
        {
            key.removeprefix(PREFIX): values
            for key, values in fitted.items()
            if key.startswith(PREFIX)
        },
    )


def encode_further(
    features: Features,
    rows: NDArray[np.integer[Any]],
    codec: Codec,
    codes: NDArray[np.uint8],
    coder: Coder,
    threads: int = 1,
) -> Further:
    """Code what `codec` leaves of some rows; the same bytes for any number of threads.

    Parameters
    ----------
    rows : ascending ids.
    codec, codes : of all rows, with the tables they are decoded by.
    coder : of a residual code, whose tables do not depend on what it codes.
    """
    out = np.empty((len(rows), coder.row_bytes), np.uint8)
    step = max(1, CHUNK_BYTES // (4 * BLOCK_ROWS * max(1, features.num_features))) * BLOCK_ROWS

    def coded(start: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mine = rows[start : start + step]
        left = features.rows(mine) - decode(codec, codes[mine])
        out[start : start + step], sums = coder.encode(left)
        error = np.zeros(len(sums.error))
        misfit(left, np.zeros_like(left), error)
        return error, sums.error

    before: list[float] = []
    after: list[float] = []
    for one, other in in_order(coded, range(0, len(rows), step), threads):
        before += one.tolist()
        after += other.tolist()
    return Further(
        replace(codec, further=coder.as_fitted), out, math.fsum(before), math.fsum(after)
    )
