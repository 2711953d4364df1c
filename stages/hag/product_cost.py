"""What a product costs, by a HAG and by the plain CSR, from counts alone: whether a HAG pays, and
which one.

A product reads rows, writes rows and passes over levels. `Rates` are measured on the machine that
multiplies, once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import Hag, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["GAIN", "Counts", "Rates", "fit", "gain", "measured_rates"]

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


ROWS = 8192
WIDTHS = (16, 128)
REPEATS = 15


def measured_rates(device: str) -> Rates:
    """Rates of products on "cpu" (one thread, without torch) or "cuda".

    Timed: rows of 2 and of 32 entries near one another, and chains of levels; the best of a few
    runs each.
    """
    timed = _on_cpu if device == "cpu" else _on_cuda
    calls: list[tuple[Counts, int, Callable[[], Any]]] = []
    for hag in (_band(ROWS, 2), _band(ROWS // 2, 32), _chain(ROWS // 8, 2), _chain(ROWS // 16, 12)):
        counts = Counts(hag.reads, hag.num_rows + hag.num_aggregations, hag.depth)
        calls += [(counts, 4 * width, timed(hag, width)) for width in WIDTHS]
    for _, _, call in calls:
        call()
    rounds = [[_seconds(call) for _, _, call in calls] for _ in range(REPEATS)]
    best = np.min(rounds, 0).tolist()  # in turns: whoever else is busy for a while is so for all
    return fit(
        [(counts, width, seconds) for (counts, width, _), seconds in zip(calls, best, strict=True)]
    )


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _band(rows: int, entries: int) -> Hag:
    """Rows that read their `entries` neighbours by number, as rows of a record do after sorting."""
    columns = (np.arange(rows)[:, None] + np.arange(entries)) % rows
    return plain(np.arange(rows + 1) * entries, np.sort(columns, 1).reshape(-1), rows)


def _chain(rows: int, levels: int) -> Hag:
    """Each level adds one column to every node of the level before; each result reads one node of
    the last.
    """
    aggs = rows * levels
    before = np.arange(aggs).reshape(levels, rows) + np.int64(0)
    lower = np.concatenate([np.arange(rows)[None], rows + before[:-1]])
    pairs = np.stack(
        [(lower + 1) % rows * (lower < rows) + lower % rows * (lower >= rows), lower], 2
    ).reshape(-1, 2)
    same = pairs[:, 0] == pairs[:, 1]
    pairs[same, 0] = (pairs[same, 0] + 1) % rows
    return Hag(
        rows,
        rows,
        level_ptr=np.arange(levels + 1) * rows,
        indptr=np.arange(aggs + 1) * 2,
        indices=np.sort(pairs, 1).reshape(-1).astype(np.int32),
        out_indptr=np.arange(rows + 1),
        out_indices=(aggs + np.arange(rows)).astype(np.int32),
        weight=None,
        out_weight=None,
        crc=0,
        plain_reads=0,
        plain_adds=0,
    )


def _on_cpu(hag: Hag, width: int) -> Callable[[], Any]:
    from stockpot.stages.hag.product.schedule import schedule, sums

    plan = schedule(hag)
    x, out = (
        np.ones((hag.num_nodes, width), np.float32),
        np.empty((hag.num_rows, width), np.float32),
    )
    ones = np.ones(hag.num_nodes, np.float32)
    return lambda: sums(plan, x, ones, ones, out)


def _on_cuda(hag: Hag, width: int) -> Callable[[], Any]:
    import torch

    from stockpot.stages.hag.product.matrix import HagMatrix

    matrix = HagMatrix(hag, moved=lambda tensor: tensor.to("cuda"))
    x = torch.ones((hag.num_nodes, width), device="cuda")

    def call() -> None:
        matrix.product(x)
        torch.cuda.synchronize()

    return call
