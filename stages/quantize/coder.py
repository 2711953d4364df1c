"""Rows become additive codes; tables become the exact means of what was coded, whatever the chunks were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.quantize.codec import Codec, describe
from stages.quantize.names import parse
from stages.quantize.sizes import BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["Coder", "Sums", "units"]

HALF_LOSS, HALF_SHARE = 1.01, 1e-10
"""Tables are half floats where no column's squared error grows by more than the one, or that share of its spread."""


def units(reach: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """f8[D], powers of two: `rows` values up to `reach` times them add up in 62 bits."""
    room = np.maximum(np.asarray(reach, np.float64), np.finfo(np.float32).tiny) * max(1, rows)
    return np.exp2(60.0 - np.ceil(np.log2(room)))


@dataclass
class Sums:
    """What a span of coded rows leaves for the tables: sums and counts in integers, energy by blocks of rows.

    Attributes
    ----------
    sums : i8, as the tables, in units of a column. counts : i8, of each entry.
    energy : f8[blocks, D], squared distance of the rows from `shift`, block by block.
    """

    sums: NDArray[np.int64]
    counts: NDArray[np.int64]
    energy: NDArray[np.float64]

    @classmethod
    def together(cls, parts: Iterable[Sums]) -> Sums:
        """Of all spans; the order does not matter."""
        first, *rest = parts
        sums, counts = first.sums.copy(), first.counts.copy()
        for part in rest:
            sums += part.sums
            counts += part.counts
        return cls(sums, counts, np.concatenate([first.energy, *(part.energy for part in rest)]))


class Coder:
    """Encodes rows with what `stages.codebook` fitted, and makes the codec that decodes them.

    Parameters
    ----------
    name : a lossy codec.
    fitted : its arrays by name (`stages.codebook.fit`), with `shift` f4[D] and `scale` f8[D] of `units`.

    >>> coder = Coder("sq1", {"levels": np.float32([[0, 4]]), "shift": np.zeros(1, np.float32), "scale": np.ones(1)})
    >>> sums = coder.sums()
    >>> coder.encode(np.float32([[1], [3], [5]]), sums).tolist()
    [[0], [1], [1]]
    >>> coder.codec(sums)[0].tables["levels"].tolist()
    [[1.0, 4.0]]
    """

    def __init__(self, name: str, fitted: Mapping[str, NDArray[Any]]) -> None:
        self.name, self.kind = name, parse(name)
        self.levels = np.asarray(fitted["levels"])
        self.shift, self.scale = np.asarray(fitted["shift"]), np.asarray(fitted["scale"])
        self.num_features = len(self.shift)
        self.row_bytes = self.kind.row_bytes(self.num_features)

    def sums(self) -> Sums:
        """Sums of no rows."""
        return Sums(
            np.zeros(self.levels.shape, np.int64),
            np.zeros(self.levels.shape, np.int64),
            np.zeros((0, self.num_features)),
        )

    def encode(self, x: NDArray[np.float32], sums: Sums) -> NDArray[np.uint8]:
        """u1[n, row_bytes] of rows f4[n, D], finite, from a multiple of `BLOCK_ROWS`; adds them to `sums`."""
        from stages.quantize.scalar import encode_scalar, thresholds

        codes = np.zeros((len(x), self.row_bytes), np.uint8)
        limits, energy = thresholds(self.levels), np.zeros((-(-len(x) // BLOCK_ROWS), self.num_features))
        encode_scalar(x, limits, self.shift, self.scale, codes, sums.sums, sums.counts, energy)
        sums.energy = np.concatenate([sums.energy, energy])
        return codes

    def codec(self, sums: Sums) -> tuple[Codec, float]:
        """The codec whose tables are the means of what was coded, and its NMSE.

        Returns
        -------
        codec : entries that no row has stay as they were fitted. Half floats where that costs no error to speak of.
        nmse : squared error of all rows over their squared distance from the column means; 0 where both are.
        """
        energy = np.array([math.fsum(column) for column in sums.energy.T.tolist()])
        used = sums.counts > 0
        means = np.divide(sums.sums, sums.counts * self.scale[:, None], out=np.zeros(used.shape), where=used)
        levels = np.where(used, means + self.shift[:, None], self.levels)
        rows = int(sums.counts[0].sum())
        spread = np.maximum(0.0, energy - rows * (sums.sums.sum(1) / self.scale / max(1, rows)) ** 2)
        with np.errstate(over="ignore", invalid="ignore"):
            single, half = (self._error(levels.astype(t), sums, energy) for t in (np.float32, np.float16))
        fits = bool((half <= HALF_LOSS * single + HALF_SHARE * energy).all())
        error, total = math.fsum(half if fits else single), math.fsum(spread)
        tables = {"levels": levels.astype(np.float16 if fits else np.float32)}
        return describe(self.name, self.num_features, tables), error / total if total else 0.0

    def _error(self, levels: NDArray[Any], sums: Sums, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared error of each column when all rows are decoded to `levels`; infinite where these are."""
        centred = levels.astype(np.float64) - self.shift[:, None]
        gain = (centred * (2 * (sums.sums / self.scale[:, None]) - sums.counts * centred)).sum(1)
        return np.where(np.isfinite(gain), np.maximum(energy - gain, 0.0), np.inf)
