"""The HAG of one record, where it pays: the same bytes wherever it is searched, given the rates it is judged by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.choice import Choice, find
from stockpot.stages.hag.columns import columns_of
from stockpot.stages.hag.cost import Rates
from stockpot.stages.hag.factors import factors
from stockpot.stages.hag.pattern import pattern
from stockpot.stages.hag.search import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.hag.pack_params import Sharing
    from stockpot.stages.pack.record import Record

__all__ = ["Shared", "best", "with_hag"]


@dataclass
class Shared:
    """Counts over the records that have a HAG: what `summary.json` says of them."""

    records: int = 0
    reads: int = 0
    plain_reads: int = 0
    adds: int = 0
    plain_adds: int = 0

    def add(self, record: Record, sharing: Sharing, threads: int) -> Record:
        """The record with its columns, counted."""
        found, choice = with_hag(record, sharing, threads)
        if choice.hag is not None:
            self.records += 1
            for name in ("reads", "plain_reads", "adds", "plain_adds"):
                setattr(self, name, getattr(self, name) + int(getattr(choice.hag, name)))
        return found

    @property
    def facts(self) -> dict[str, int]:
        return asdict(self)


def best(indptr: NDArray[Any], indices: NDArray[Any], sharing: Sharing, *, loops: bool, threads: int = 1) -> Choice:
    """The HAG of a square CSR, the diagonal added where `loops`."""
    ptr, columns = pattern(indptr, indices, loops=loops)
    return find(
        ptr,
        columns,
        rates=Rates(*(rate * 1e-9 for rate in sharing.rates)),
        row_bytes=sharing.row_bytes,
        least=sharing.least,
        settings=Settings(capacity=None if sharing.capacity < 0 else sharing.capacity),
        threads=threads,
    )


def with_hag(record: Record, sharing: Sharing, threads: int = 1) -> tuple[Record, Choice]:
    """The record with its `hag_*` columns, empty where a HAG does not pay or its edge weights do not factor.

    Weights are factored into the products' scales, so their CSR is searched without the diagonal, whose entries have
    none.

    Raises
    ------
    BadInput
        Weights do not factor though a HAG was asked for in any case (`least` is 0): the edge is named.
    """
    scale, loops = None, sharing.loops and record.weight is None
    choice = Choice(None, 1.0, 1.0)
    try:
        if record.weight is not None:
            values = record.weight.astype(np.float64)
            scale = factors(record.indptr.astype(np.int64), record.indices, values)
        choice = best(record.indptr, record.indices, sharing, loops=loops, threads=threads)
    except BadInput:
        if sharing.least == 0 or record.weight is None:
            raise
    columns: dict[str, Any] = columns_of(choice.hag, record.indptr, record.indices, loops=loops, scale=scale)
    return replace(record, **columns), choice
