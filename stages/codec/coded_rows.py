"""Feature rows that stay bytes until a layer needs them: multiplied as tables, or decoded,
whichever costs less.

A row is the sum over its bytes of one table row each (`stages.codec.lookup`). A linear layer is
linear in that sum, so x W^T is the same sum over the tables times W^T: 256 rows a byte are
multiplied, whatever the number of nodes. What a step holds is the plain bytes of its records; the
tables are made once for all steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stockpot.stages.codec.table_sum import ENTRIES, table_sum

if TYPE_CHECKING:
    from stockpot.stages.codec.lookup import Lookup

__all__ = ["Coded", "Part", "Tables", "dense", "first_rows", "kept_tensors", "linear", "worth"]

# What one core spends, in multiply-adds of its dense product (`python -m tests.bench.coded
# --costs`): on an element of a table row that is read for a row, on one that the gradient is added
# to, and on an element of a decoded row.
READ, ADD, WRITE = 4.0, 5.0, 10.0


@dataclass(frozen=True)
class Tables:
    """Tables of an additive byte code on one device.

    Attributes
    ----------
    values : f[bytes, 256, width]; entries that no code names and columns past a table's own are
        zero.
    columns : i8[bytes, width], feature that each column adds to; 0 past a table's own.
    lookup : the same tables in numpy.
    """

    values: Tensor
    columns: Tensor
    lookup: Lookup

    @classmethod
    def of(
        cls, lookup: Lookup, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Tables:
        """The tables of a code of bytes (`lookup.unit` is 1)."""
        count, width = len(lookup), int((lookup.hi - lookup.lo).max())
        values = np.zeros((count, ENTRIES, width), np.float32)
        columns = np.zeros((count, width), np.int64)
        for b in range(count):
            table = lookup.table(b)
            values[b, : table.shape[0], : table.shape[1]] = table
            columns[b, : table.shape[1]] = np.arange(lookup.lo[b], lookup.hi[b])
        return cls(
            torch.from_numpy(values).to(device, dtype), torch.from_numpy(columns).to(device), lookup
        )

    @property
    def num_features(self) -> int:
        return self.lookup.num_features

    @cached_property
    def whole(self) -> bool:
        """Whether every table adds to all features, as in residual quantization."""
        return bool(((self.lookup.hi - self.lookup.lo) == self.num_features).all())

    @cached_property
    def side_by_side(self) -> bool:
        """Whether the columns of the tables, one after the other, are the features, as in product
        quantization.
        """
        count, width = self.columns.shape
        return self.lookup.disjoint and np.array_equal(self.lookup.lo, width * np.arange(count))

    def projected(self, weight: Tensor) -> Tensor:
        """f[bytes, 256, out]: every entry times the columns of `weight` (f[out, D]) that it adds
        to.
        """
        if self.whole:
            return (self.values.view(-1, self.num_features) @ weight.t()).view(
                *self.values.shape[:2], -1
            )
        return torch.bmm(self.values, weight.t()[self.columns])

    def decoded(self, codes: Tensor) -> Tensor:
        """f[n, D], the rows that `codes` (u1[n, bytes]) stand for."""
        if self.values.device.type == "cpu" and self.values.dtype == torch.float32:
            out = torch.empty((codes.shape[0], self.num_features))
            self.lookup.decode(
                codes.numpy(), np.arange(codes.shape[0], dtype=np.int32), out.numpy()
            )
            return out
        if self.whole:
            return table_sum(codes, self.values)
        entries = codes.long()
        if self.side_by_side:
            found = self.values[torch.arange(entries.shape[1], device=entries.device), entries]
            return found.flatten(1)[:, : self.num_features]
        out = self.values.new_zeros((codes.shape[0], self.num_features))
        for b in range(codes.shape[1]):
            out.index_add_(1, self.columns[b], self.values[b, entries[:, b]])
        return out


@dataclass(frozen=True)
class Part:
    """Codes of some rows, added to what other parts say of them.

    Attributes
    ----------
    codes : u1[k, bytes].
    tables : what the bytes choose from.
    rows : i8[k], ascending; None where the part is of all rows.
    """

    codes: Tensor
    tables: Tables
    rows: Tensor | None = None

    def of_first(self, count: int) -> Part:
        """The same of the first `count` rows."""
        if self.rows is None:
            return Part(self.codes[:count], self.tables)
        kept = int(torch.searchsorted(self.rows, count))
        return Part(self.codes[:kept], self.tables, self.rows[:kept])


@dataclass(frozen=True)
class Coded:
    """Feature rows of a step as codes; the first part is of all rows. Like a tensor f[n, D] without
    gradient.

    Attributes
    ----------
    parts : codes, then further stages of the rows that have them.
    """

    parts: tuple[Part, ...]
    requires_grad = False

    @property
    def shape(self) -> tuple[int, int]:
        return self.parts[0].codes.shape[0], self.parts[0].tables.num_features

    def first(self, count: int) -> Coded:
        """The first `count` rows."""
        return Coded(tuple(part.of_first(count) for part in self.parts))

    def decoded(self) -> Tensor:
        """f[n, D]"""
        return self._summed([part.tables.decoded(part.codes) for part in self.parts])

    def times(self, weight: Tensor) -> Tensor:
        """f[n, out], rows times the transpose of `weight` (f[out, D]), never decoded; exact
        gradient of the weight.
        """
        return self._summed(
            [table_sum(part.codes, part.tables.projected(weight)) for part in self.parts]
        )

    def _summed(self, found: list[Tensor]) -> Tensor:
        out = found[0]
        for part, values in zip(self.parts[1:], found[1:], strict=True):
            assert part.rows is not None
            out = out.index_add(0, part.rows, values)
        return out

    @property
    def decode_cost(self) -> float:
        """Multiply-adds of a dense product that decoding takes the time of."""
        n, columns = self.shape
        return WRITE * n * columns + sum(
            READ * p.codes.numel() * p.tables.values.shape[2] for p in self.parts
        )

    def _tables_cost(self, out_dim: int, *, backward: bool) -> float:
        products = (1 + backward) * out_dim * sum(part.tables.values.numel() for part in self.parts)
        return products + (READ + ADD * backward) * out_dim * sum(
            part.codes.numel() for part in self.parts
        )

    def _dense_cost(self, out_dim: int, *, backward: bool) -> float:
        n, columns = self.shape
        return self.decode_cost + (1 + backward) * out_dim * n * columns

    def as_tables(self, out_dim: int, *, backward: bool) -> bool:
        """Whether a linear layer of the codes is cheaper than one of the decoded rows; `backward`:
        with its gradient.

        On a GPU the dense product is nearly free beside reading one table row for each byte.
        """
        if self.parts[0].codes.is_cuda:
            return False
        return self._tables_cost(out_dim, backward=backward) <= self._dense_cost(
            out_dim, backward=backward
        )

    def linear_cost(self, out_dim: int, *, backward: bool) -> float:
        """As `decode_cost`, for a linear layer by the way it will take."""
        cost = self._tables_cost if self.as_tables(out_dim, backward=backward) else self._dense_cost
        return cost(out_dim, backward=backward)


def worth(lookup: Lookup, device: torch.device) -> bool:
    """Whether steps are better given codes than rows.

    On a GPU always, where they are codes of bytes: fewer bytes are copied. On a CPU where a wide
    layer with its gradient is cheaper on them; else the loader decodes, beside the training.
    """
    if lookup.unit != 1:
        return False
    return device.type == "cuda" or (READ + ADD) * len(lookup) <= 2 * lookup.num_features


def dense(x: Tensor | Coded) -> Tensor:
    """f[n, D], feature rows whether coded or not."""
    return x.decoded() if isinstance(x, Coded) else x


def first_rows(x: Tensor | Coded, count: int) -> Tensor | Coded:
    """The first `count` rows, a view."""
    return x.first(count) if isinstance(x, Coded) else x[:count]


def kept_tensors(x: Tensor | Coded) -> list[Tensor]:
    """What a step itself holds of its features: the tables are those of all steps."""
    if isinstance(x, Tensor):
        return [x]
    return [tensor for part in x.parts for tensor in (part.codes, part.rows) if tensor is not None]


def linear(x: Tensor | Coded, weight: Tensor) -> Tensor:
    """`x weight^T`, f[n, out]; of codes by the cheaper of two ways, which agree but for
    rounding.
    """
    if isinstance(x, Tensor):
        return functional.linear(x, weight)
    backward = torch.is_grad_enabled() and weight.requires_grad
    if x.as_tables(weight.shape[0], backward=backward):
        return x.times(weight)
    return functional.linear(x.decoded(), weight)
