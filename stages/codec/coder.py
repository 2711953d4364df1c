"""Rows become additive codes; tables become the exact means of what was coded, whatever the chunks
were.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.codec_names import parse
from stockpot.stages.codec.format import Codec, decode, describe
from stockpot.stages.codec.row_blocks import BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["Coder", "Sums", "units"]

HALF_LOSS, HALF_SHARE = 1.01, 1e-10
"""Tables are half floats where no column's squared error grows by more than the one, or that share
of its spread."""
BEAM = 8
"""Chains a search of `rq` keeps."""


def units(reach: NDArray[np.floating[Any]], rows: int) -> NDArray[np.float64]:
    """f8[D], powers of two: `rows` values up to `reach` times them add up in 62 bits."""
    room = np.maximum(np.asarray(reach, np.float64), np.finfo(np.float32).tiny) * max(1, rows)
    return np.exp2(60.0 - np.ceil(np.log2(room)))


@dataclass
class Sums:
    """What a span of coded rows leaves for the tables and figures: integers, and floats of whole
    blocks of rows.

    Attributes
    ----------
    sums : i8[D, K], of the values that have each entry, less `shift`, in units of a column; K = 1
        of `rq`.
    counts : i8[parts, K], rows of each entry of each part.
    energy : f8[blocks, D], squared distance of the rows from `shift`.
    error : f8[blocks], squared distance of the rows from what they decode to; of `rq` only.
    """

    sums: NDArray[np.int64]
    counts: NDArray[np.int64]
    energy: NDArray[np.float64]
    error: NDArray[np.float64]

    @classmethod
    def together(cls, parts: Iterable[Sums]) -> Sums:
        """Of all spans, one at a time; their order does not matter."""
        rest = iter(parts)
        first = next(rest)
        sums, counts = first.sums.copy(), first.counts.copy()
        energy, error = [first.energy], [first.error]
        for part in rest:
            sums += part.sums
            counts += part.counts
            energy.append(part.energy)
            error.append(part.error)
        return cls(sums, counts, np.concatenate(energy), np.concatenate(error))


class Coder:
    """Encodes rows with what `stockpot.stages.codebook` fitted, and makes the codec that decodes
    them.

    Parameters
    ----------
    name : a lossy codec.
    fitted : its arrays by name (`stockpot.stages.codec.fit`), with `shift` f4[D] and `scale` f8[D]
        of `units`.

    Attributes
    ----------
    as_fitted : codec of `rq`, whose tables do not depend on what is coded.

    >>> tables = {"levels": np.float32([[0, 4]]), "shift": np.zeros(1), "scale": np.ones(1)}
    >>> coder = Coder("sq1", tables)
    >>> codes, sums = coder.encode(np.float32([[1], [3], [5]]))
    >>> codes.tolist(), coder.codec(sums)[0].tables["levels"].tolist()
    ([[0], [1], [1]], [[1.0, 4.0]])
    """

    def __init__(self, name: str, fitted: Mapping[str, NDArray[Any]]) -> None:
        self.name, self.kind = name, parse(name)
        self.fitted = {key: np.ascontiguousarray(values) for key, values in fitted.items()}
        self.shift, self.scale = self.fitted["shift"], self.fitted["scale"]
        self.num_features = columns = len(self.shift)
        self.row_bytes = self.kind.row_bytes(columns)
        self._edges = np.array(self.kind.edges(columns), np.int64)
        self._rotation: NDArray[np.float32] | None = None
        if self.kind.family == "opq":
            self._prepare_rotation()
        if self.kind.bits:
            levels = np.broadcast_to(self.fitted["levels"], (columns, self.kind.entries))
            self._prepare_scalar(levels)
        elif self.kind.family == "rq":
            self._prepare_stages()
        else:
            self._prepare_parts(self.fitted["levels"])

    def _prepare_rotation(self) -> None:
        """Rotated columns are what is coded and counted; none of them is longer than a row."""
        self._rotation, self._origin = self.fitted["rotation"], self.shift
        steps = int(np.ceil(np.log2(np.sqrt(self.num_features))))
        self.shift = np.zeros(self.num_features, np.float32)
        self.scale = np.full(self.num_features, np.ldexp(self.scale.min(), -steps))

    def _prepare_scalar(self, levels: NDArray[np.float32]) -> None:
        from stockpot.stages.codec.scalar import thresholds

        self.levels: NDArray[np.float32] = levels
        limits = self.fitted["limits"] if "limits" in self.fitted else thresholds(levels)
        self._limits = np.ascontiguousarray(
            np.broadcast_to(limits, (self.num_features, limits.shape[1]))
        )

    def _prepare_parts(self, levels: NDArray[np.float32]) -> None:
        from stockpot.stages.codec.nearest import offsets

        self.levels = levels
        self._turned, self._offset = [], []
        for lo, hi in itertools.pairwise(self._edges.tolist()):
            if "directions" in self.fitted:
                turned = self.fitted["directions"][lo:hi]
                self._offset.append(np.zeros(levels.shape[1], np.float32))
            else:
                turned = levels[lo:hi] - self.shift[lo:hi, None]
                self._offset.append(offsets(turned.T))
            self._turned.append(np.ascontiguousarray(turned))

    def _prepare_stages(self) -> None:
        from stockpot.stages.codec.nearest import gram, offsets

        self.levels = np.zeros((self.num_features, 1), np.float32)
        tables = self.fitted["tables"].astype(np.float32)
        flat = tables.reshape(-1, self.num_features)
        self._turned, self._offset = [np.ascontiguousarray(flat.T)], [offsets(flat)]
        self._gram = gram(tables)
        stored = {"shift": self.shift, "tables": self.fitted["tables"]}
        self.as_fitted = describe(self.name, self.num_features, stored)

    def encode(self, x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], Sums]:
        """(codes u1[n, row_bytes], their sums) of finite rows f4[n, D] that begin at a multiple of
        `BLOCK_ROWS`.
        """
        if self._rotation is not None:
            from stockpot.stages.codec.nearest import product

            x = product(x - self._origin, self._rotation)
        blocks = -(-len(x) // BLOCK_ROWS)
        sums = Sums(
            np.zeros(self.levels.shape, np.int64),
            np.zeros((len(self._edges) - 1, self.levels.shape[1]), np.int64),
            np.zeros((blocks, self.num_features)),
            np.zeros(blocks),
        )
        if self.kind.bits:
            return self._encode_scalar(x, sums), sums
        return (self._encode_stages if self.kind.family == "rq" else self._encode_parts)(
            x, sums
        ), sums

    def _encode_scalar(self, x: NDArray[np.float32], sums: Sums) -> NDArray[np.uint8]:
        from stockpot.stages.codec.scalar import encode_scalar

        codes = np.zeros((len(x), self.row_bytes), np.uint8)
        encode_scalar(
            x, self._limits, self.shift, self.scale, codes, sums.sums, sums.counts, sums.energy
        )
        return codes

    def _encode_parts(self, x: NDArray[np.float32], sums: Sums) -> NDArray[np.uint8]:
        from stockpot.stages.codec.exact_sums import tally
        from stockpot.stages.codec.nearest import nearest

        ids = np.empty((len(x), len(self._turned)), np.uint32)
        own = np.empty(len(x), np.uint32)
        for u, (lo, hi) in enumerate(itertools.pairwise(self._edges.tolist())):
            cosine = "rim" in self.fitted
            part = np.ascontiguousarray(x[:, lo:hi]) if cosine else x[:, lo:hi] - self.shift[lo:hi]
            nearest(part, self._turned[u], self._offset[u], own)
            if cosine:
                norm = np.sqrt((part.astype(np.float64) ** 2).sum(1))
                own[norm < self.fitted["rim"][u]] = self.kind.entries - 1
            ids[:, u] = own
        tally(x, ids, self._edges, self.shift, self.scale, sums.sums, sums.counts, sums.energy)
        return ids.astype(f"<u{self.kind.unit}").view(np.uint8).reshape(len(x), self.row_bytes)

    def _encode_stages(self, x: NDArray[np.float32], sums: Sums) -> NDArray[np.uint8]:
        from stockpot.stages.codec.exact_sums import misfit, tally
        from stockpot.stages.codec.nearest import chains

        codes = np.empty((len(x), self.kind.units), np.uint8)
        rest = x - self.shift
        chains(rest, self._turned[0], self._offset[0], self._gram, self.kind.units, BEAM, codes)
        decode(self.as_fitted, codes, out=rest)
        misfit(x, rest, sums.error)
        none = np.zeros((len(x), 1), np.uint32)
        tally(x, none, self._edges, self.shift, self.scale, sums.sums, sums.counts, sums.energy)
        return codes

    def codec(self, sums: Sums) -> tuple[Codec, float]:
        """The codec whose tables are the means of what was coded, and its NMSE.

        Entries that no row has stay as they were fitted, as do the tables of `rq`, which are a
        least-squares solution, and what BiFeat does not average. Half floats where they cost no
        error to speak of; BiFeat's are fp32.

        Returns
        -------
        codec : with its tables.
        nmse : squared error of all rows over their squared distance from the column means; 0 where
            both are. Both are taken in rotated columns where the code is of these: rounding of the
            rotation is left out.
        """
        energy = np.array([math.fsum(column.tolist()) for column in sums.energy.T])
        if self.kind.family == "rq":
            codec, error = self.as_fitted, math.fsum(sums.error.tolist())
        else:
            codec, error = self._averaged(sums, energy)
        total = self.spread(sums)
        return codec, error / total if total else 0.0

    def spread(self, sums: Sums) -> float:
        """Squared distance of all rows from the column means."""
        energy = np.array([math.fsum(column.tolist()) for column in sums.energy.T])
        rows = max(1, int(sums.counts[0].sum()))
        off = (sums.sums.sum(1) / self.scale / rows) ** 2
        return math.fsum(np.maximum(0.0, energy - rows * off).tolist())

    def _averaged(self, sums: Sums, energy: NDArray[np.float64]) -> tuple[Codec, float]:
        counts = np.repeat(sums.counts, np.diff(self._edges), axis=0)
        used = counts > 0
        if self.kind.family == "bifeat-sq":
            used[:] = False
        elif self.kind.family == "bifeat-vq":
            used[:, -1] = False
        means = np.divide(
            sums.sums, counts * self.scale[:, None], out=np.zeros(used.shape), where=used
        )
        levels = np.where(used, means + self.shift[:, None], self.levels)
        with np.errstate(over="ignore", invalid="ignore"):
            single, half = (
                self._error(levels.astype(t), sums, counts, energy)
                for t in (np.float32, np.float16)
            )
        ours = not self.kind.family.startswith("bifeat")
        fits = ours and bool((half <= HALF_LOSS * single + HALF_SHARE * energy).all())
        levels = levels[: len(self.fitted["levels"])].astype(np.float16 if fits else np.float32)
        error = math.fsum((half if fits else single).tolist())
        tables = {"levels": levels}
        if self._rotation is not None:
            tables |= {"rotation": self._rotation, "shift": self._origin}
        return describe(self.name, self.num_features, tables), error

    def _error(
        self,
        levels: NDArray[Any],
        sums: Sums,
        counts: NDArray[np.int64],
        energy: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Squared error of each column when all rows are decoded to `levels`; infinite where these
        are.
        """
        centred = levels.astype(np.float64) - self.shift[:, None]
        gain = (centred * (2 * (sums.sums / self.scale[:, None]) - counts * centred)).sum(1)
        return np.where(np.isfinite(gain), np.maximum(energy - gain, 0.0), np.inf)
