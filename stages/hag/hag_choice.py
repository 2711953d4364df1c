"""One HAG for a CSR, or none: searched where one could pay, shaped to what costs least, kept where
it does pay.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.columns import columns_of
from stockpot.stages.hag.factors import factors
from stockpot.stages.hag.product_cost import GAIN, Counts, Rates, gain
from stockpot.stages.hag.search.csr_rows import pattern
from stockpot.stages.hag.search.prepared import Settings, prepared
from stockpot.stages.hag.search.search import search_prepared
from stockpot.stages.hag.search.shape import Outline, Shape, build, outline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.hag.hag import Hag
    from stockpot.stages.hag.planning import Sharing
    from stockpot.stages.hag.search.search import Merges
    from stockpot.stages.pack.record import Record

__all__ = ["DEPTHS", "KEEPS", "Choice", "Shared", "best", "choose", "find", "with_hag"]

KEEPS, DEPTHS = (0, 1, 4, 16), (8, 4, 2, 1)
"""What is tried: an outline of each costs a pass over what the search left."""


@dataclass(frozen=True)
class Choice:
    """The HAG, None where it does not pay, and why.

    Attributes
    ----------
    possible : most that any HAG could gain, by a floor (an estimate of it on large graphs) under
        its reads.
    predicted : gain of the best one that was found; 1 where nothing was searched.
    """

    hag: Hag | None
    possible: float
    predicted: float


def plain_counts(merges: Merges) -> Counts:
    """Counts of the plain CSR."""
    return Counts(merges.plain_reads, merges.num_rows, 0)


def choose(
    merges: Merges, rates: Rates, row_bytes: Sequence[int], *, capacity: int = -1
) -> tuple[Outline, float]:
    """The outline of the largest predicted gain, and that gain: first the filter, then with it the
    number of levels.
    """

    def tried(keep: int, depth: int) -> tuple[float, int, Outline]:
        plan = outline(merges, Shape(capacity, keep, depth))
        counts = Counts(plan.reads, merges.num_rows + plan.nodes, plan.levels)
        return gain(rates, plain_counts(merges), counts, row_bytes), keep, plan

    best = max(
        (tried(keep, DEPTHS[0]) for keep in KEEPS), key=lambda t: t[0]
    )  # of equal ones the first
    best = max((best, *(tried(best[1], depth) for depth in DEPTHS[1:])), key=lambda t: t[0])
    return best[2], best[0]


def find(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    num_nodes: int | None = None,
    *,
    rates: Rates,
    row_bytes: Sequence[int],
    least: float = GAIN,
    settings: Settings | None = None,
    threads: int = 1,
) -> Choice:
    """Search a CSR and keep the best HAG if it is predicted to be `least` times as fast as the
    plain CSR.

    Where even the floor under its reads would not do, nothing is searched: that costs about as much
    as counting the columns two rows share.

    Parameters
    ----------
    indptr, indices, num_nodes, settings, threads : as of
        `stockpot.stages.hag.search.search.search`.
    row_bytes : bytes of a row of each product of a training step (or pass), so 4 times the width of
        each layer in fp32.
    least : 0 keeps the best one, whatever is predicted.
    """
    how = Settings() if settings is None else settings
    work = prepared(indptr, indices, num_nodes, how)
    plain = Counts(work.plain_reads, work.num_rows, 0)
    possible = gain(rates, plain, Counts(work.fewest_reads(how), work.num_rows, 0), row_bytes)
    if possible < least:
        return Choice(None, possible, 1.0)
    merges = search_prepared(work, how, threads=threads)
    plan, predicted = choose(merges, rates, row_bytes, capacity=how.most(work.num_nodes))
    return Choice(build(merges, plan) if predicted >= least else None, possible, predicted)


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


def best(
    indptr: NDArray[Any], indices: NDArray[Any], sharing: Sharing, *, loops: bool, threads: int = 1
) -> Choice:
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
    """The record with its `hag_*` columns, empty where a HAG does not pay or its edge weights do
    not factor.

    Weights are factored into the products' scales, so their CSR is searched without the diagonal,
    whose entries have none.

    Raises
    ------
    BadInput
        Weights do not factor though a HAG was asked for in any case (`least` is 0): the edge is
        named.
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
    columns: dict[str, Any] = columns_of(
        choice.hag, record.indptr, record.indices, loops=loops, scale=scale
    )
    return replace(record, **columns), choice
