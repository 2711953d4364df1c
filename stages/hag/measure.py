"""Rates of a machine for the cost model, from products timed here: a fraction of a second, once for
a data set.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.hag.cost import Counts, fit
from stockpot.stages.hag.hag import Hag, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from stockpot.stages.hag.cost import Rates

__all__ = ["measured_rates"]

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
    from stockpot.stages.hag.schedule import schedule, sums

    plan = schedule(hag)
    x, out = (
        np.ones((hag.num_nodes, width), np.float32),
        np.empty((hag.num_rows, width), np.float32),
    )
    ones = np.ones(hag.num_nodes, np.float32)
    return lambda: sums(plan, x, ones, ones, out)


def _on_cuda(hag: Hag, width: int) -> Callable[[], Any]:
    import torch

    from stockpot.stages.hag.matrix import HagMatrix

    matrix = HagMatrix(hag, moved=lambda tensor: tensor.to("cuda"))
    x = torch.ones((hag.num_nodes, width), device="cuda")

    def call() -> None:
        matrix.product(x)
        torch.cuda.synchronize()

    return call
