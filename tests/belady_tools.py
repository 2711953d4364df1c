"""Rows that Belady's cache reads for an order, for tests and benchmarks that need no plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.loadplan.belady import Cache, note_next_uses

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["planned_reads"]


def planned_reads(
    n_id: NDArray[np.integer],
    n_ptr: NDArray[np.int64],
    order: NDArray[np.integer],
    num_nodes: int,
    rows: int,
) -> NDArray[np.int64]:
    """i8[R], rows read by each batch of an order, from an empty cache of `rows`: what a plan would
    say, not kept."""
    batches = len(order)
    last, uses = np.full(num_nodes, batches, np.int32), []
    for k in range(batches - 1, -1, -1):
        nodes = n_id[n_ptr[order[k]] : n_ptr[order[k] + 1]]
        uses.append(np.empty(len(nodes), np.int32))
        note_next_uses(nodes, k, batches, last, uses[-1])
    cache, out = Cache(rows, num_nodes, batches), np.zeros(batches, np.int64)
    for k in range(batches):
        nodes = n_id[n_ptr[order[k]] : n_ptr[order[k] + 1]]
        out[k] = len(cache.step(nodes, k, uses.pop(), np.empty(len(nodes), np.int32))[0])
    return out
