"""What a product costs, by a HAG and by the plain CSR, from counts alone: whether a HAG pays, and
which one.

A product reads rows, writes rows and passes over levels. `Rates` are measured on the machine that
multiplies, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["GAIN", "Counts", "Rates", "fit", "gain"]

GAIN = 1.2
"""How much faster a HAG must be predicted to be, to be used."""


@dataclass(frozen=True)
class Counts:
    """What one product does: rows read, rows written (aggregation nodes and results), levels of
    aggregation nodes.
    """

    reads: float
    writes: int
    levels: int


@dataclass(frozen=True)
class Rates:
    """Seconds of the parts of a product; a row of b bytes costs `fixed + b * by_byte`.

    Attributes
    ----------
    read, read_byte : a row added to a sum: the lookup, and each byte of it.
    write, write_byte : a row written: its loop, and each byte of it.
    level : one pass over a level, on a GPU one launch.
    """

    read: float
    read_byte: float
    write: float
    write_byte: float
    level: float

    def seconds(self, counts: Counts, row_bytes: int) -> float:
        """Predicted time of one product with rows of so many bytes."""
        return (
            counts.reads * (self.read + self.read_byte * row_bytes)
            + counts.writes * (self.write + self.write_byte * row_bytes)
            + counts.levels * self.level
        )


def gain(rates: Rates, plain: Counts, other: Counts, row_bytes: Sequence[int]) -> float:
    """How much faster `other` is predicted to be than `plain`, over one product of each width."""
    slow, fast = (
        sum(rates.seconds(counts, width) for width in row_bytes) for counts in (plain, other)
    )
    return slow / fast if fast > 0 else 1.0


def fit(measured: Sequence[tuple[Counts, int, float]]) -> Rates:
    """Rates of products that were timed: (counts, bytes of a row, seconds) each. Least squares of
    relative errors.

    No rate is negative (Lawson and Hanson's non-negative least squares), so a longer product is
    never predicted to be faster.

    Raises
    ------
    BadInput
        With fewer measurements than rates.
    """
    terms = np.array([_terms(counts, width) for counts, width, _ in measured], np.float64).reshape(
        -1, 5
    )
    seconds: NDArray[Any] = np.array([s for _, _, s in measured], np.float64)
    if len(seconds) < 5:
        raise BadInput(
            f"5 rates cannot be fitted to {len(seconds)} products", fix="time more of them"
        )
    scaled = terms / seconds[:, None]
    size = np.maximum(
        scaled.max(0), 1e-300
    )  # so that the solver's tolerance sees columns of one size
    rates, _ = nnls(scaled / size, np.ones(len(seconds)))
    return Rates(*(rates / size).tolist())


def _terms(counts: Counts, width: int) -> list[float]:
    return [counts.reads, counts.reads * width, counts.writes, counts.writes * width, counts.levels]
