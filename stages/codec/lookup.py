"""Additive codes: a decoded row is the sum of one row of each table, the same bits in numpy and
torch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.codec.codec_names import Kind

__all__ = ["Lookup", "expand"]


@dataclass(frozen=True)
class Lookup:
    """Tables of an additive code, one for each code of a row.

    Code u chooses row c of table u, `values[offset[u] + c * width ...]`, width = hi[u] - lo[u],
    which is added to columns lo[u]..hi[u] of the row, in the order of the codes. Either no two
    tables share a column, or every table covers all of them and has 256 rows.

    Attributes
    ----------
    num_features : columns of a decoded row; each is covered by a table at least.
    unit : bytes of a code: 1, 2 or 4, little-endian.
    entries : rows of every table; 256 where `unit` is 1, padded with zeros.
    lo, hi, offset : i8[units].
    values : f4[total].
    """

    num_features: int
    unit: int
    entries: int
    lo: NDArray[np.int64]
    hi: NDArray[np.int64]
    offset: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.lo)

    def table(self, u: int) -> NDArray[np.float32]:
        """f4[entries, hi[u] - lo[u]], a view."""
        width = int(self.hi[u] - self.lo[u])
        return self.values[self.offset[u] : self.offset[u] + self.entries * width].reshape(
            self.entries, width
        )

    @cached_property
    def disjoint(self) -> bool:
        """Whether every column is covered by one table only."""
        return int((self.hi - self.lo).sum()) == self.num_features

    def decode(
        self, codes: NDArray[np.uint8], rows: NDArray[np.int32], out: NDArray[np.float32]
    ) -> None:
        """Write row i of `codes` (u1[n, row_bytes]) to `out[rows[i]]` (f4[m, num_features]).

        Raises
        ------
        Corrupt
            A code is outside its table.
        """
        from stockpot.stages.codec import code_tables

        if not len(codes):
            return
        ids = np.ascontiguousarray(codes).view(f"<u{self.unit}")
        if self.unit > 1 and int(ids.max()) >= self.entries:
            raise Corrupt(f"codes: expected codes below {self.entries}, found {ids.max()}")
        if not self.disjoint:
            code_tables.add_stages(ids, rows, self.values, out)
            return
        even = self._even if self.unit == 1 else 0
        if even:
            code_tables.SET_EVEN[int(self.hi[0])](ids[:, :even], rows, self.values, out)
        if even < len(self):
            rest = (values[even:] for values in (self.lo, self.hi, self.offset))
            code_tables.set_parts(ids[:, even:], rows, *rest, self.values, out)

    @cached_property
    def _even(self) -> int:
        """Codes from the first that all stand for the same number of columns, one of those decoded
        fastest.
        """
        from stockpot.stages.codec.code_tables import SET_EVEN

        width = self.hi - self.lo
        if int(width[0]) not in SET_EVEN:
            return 0
        return int((np.cumprod(width == width[0])).sum())


def expand(kind: Kind, num_features: int, tables: Mapping[str, NDArray[Any]]) -> Lookup:
    """Tables as stored, made ready for decoding. O(256 num_features) bytes for scalar codecs."""
    if kind.family == "rq":
        return _stages(
            np.asarray(tables["tables"], np.float32), np.asarray(tables["shift"], np.float32)
        )
    levels = np.asarray(tables["levels"], np.float32)
    if kind.family == "opq":
        return _rotated(kind, levels, np.asarray(tables["rotation"]), np.asarray(tables["shift"]))
    return _scalar(kind.bits, num_features, levels) if kind.bits else _parts(kind, levels)


def _stages(tables: NDArray[np.float32], shift: NDArray[np.float32]) -> Lookup:
    """Tables of all columns, from `tables` f4[M, K, D]; the first has `shift` in it."""
    stages, entries, columns = tables.shape
    values = np.zeros((stages, 256, columns), np.float32)
    values[:, :entries] = tables
    values[0] += shift
    places = np.arange(stages, dtype=np.int64)
    return Lookup(
        columns,
        1,
        256,
        0 * places,
        0 * places + columns,
        256 * columns * places,
        values.reshape(-1),
    )


def _rotated(
    kind: Kind,
    levels: NDArray[np.float32],
    rotation: NDArray[np.float32],
    shift: NDArray[np.float32],
) -> Lookup:
    """Tables of all columns: entries of each part turned back."""
    from stockpot.stages.codec.nearest import product

    columns, entries = levels.shape
    edges = kind.edges(columns)
    tables = np.zeros((len(edges) - 1, entries, columns), np.float32)
    for u, (lo, hi) in enumerate(itertools.pairwise(edges)):
        tables[u] = product(levels[lo:hi].T, rotation[:, lo:hi].T)
    return _stages(tables, shift)


def _parts(kind: Kind, levels: NDArray[np.float32]) -> Lookup:
    """Tables of a slice of the columns each, from `levels` f4[D, K]."""
    columns, entries = levels.shape
    rows = 256 if kind.unit == 1 else entries
    edges = np.array(kind.edges(columns), np.int64)
    values = np.zeros(rows * columns, np.float32)
    for lo, hi in itertools.pairwise(edges.tolist()):
        values[rows * lo : rows * hi].reshape(rows, hi - lo)[:entries] = levels[lo:hi].T
    return Lookup(columns, kind.unit, rows, edges[:-1], edges[1:], rows * edges[:-1], values)


def _scalar(bits: int, num_features: int, levels: NDArray[np.float32]) -> Lookup:
    """Tables of bytes from `levels`, f4[num_features or 1, 2^bits]."""
    per_byte = 8 // bits
    lo = np.arange(0, num_features, per_byte, dtype=np.int64)
    hi = np.minimum(lo + per_byte, num_features)
    offset = 256 * lo
    values = np.empty(256 * num_features, np.float32)
    levels = np.broadcast_to(levels, (num_features, levels.shape[1]))
    byte = np.arange(256)
    for start, stop, at in zip(lo.tolist(), hi.tolist(), offset.tolist(), strict=True):
        fields = (byte[:, None] >> (bits * np.arange(stop - start))) & (2**bits - 1)
        values[at : at + 256 * (stop - start)] = levels[np.arange(start, stop), fields].reshape(-1)
    return Lookup(num_features, 1, 256, lo, hi, offset, values)
