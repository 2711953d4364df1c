"""How much of one batch the next ones read again: what kappa and a cache save, counted on the
batches themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["lru_misses", "overlap"]


def overlap(
    n_id: NDArray[np.int32],
    n_ptr: NDArray[np.int64],
    num_nodes: int,
    order: NDArray[np.integer] | None = None,
) -> float | None:
    """Mean share of a batch's rows that were in the batch before: O(rows). None where there is one
    batch.

    Parameters
    ----------
    n_id, n_ptr : i4[rows], i8[batches + 1], distinct vertices of each batch.
    order : int[batches], in which the batches follow each other; as they stand where None.
    """
    if len(n_ptr) < 3:
        return None
    order = np.arange(len(n_ptr) - 1) if order is None else order.astype(np.int64)
    return float(_shares(n_id, n_ptr, num_nodes, order).mean())


def lru_misses(
    n_id: NDArray[np.int32], n_ptr: NDArray[np.int64], num_nodes: int, capacity: int
) -> float:
    """Share of row reads that a cache of the `capacity` rows used last misses, from a cold start:
    O(rows).
    """
    return _lru(n_id[n_ptr[0] : n_ptr[-1]], num_nodes, capacity) / max(1, int(n_ptr[-1] - n_ptr[0]))


@njit(cache=True, nogil=True)
def _shares(
    n_id: NDArray[np.int32], n_ptr: NDArray[np.int64], num_nodes: int, order: NDArray[np.int64]
) -> NDArray[np.float64]:
    last = np.full(num_nodes, -1, np.int32)
    out = np.zeros(n_ptr.size - 2)
    for b in range(order.size):
        begin, end = n_ptr[order[b]], n_ptr[order[b] + 1]
        again = 0
        for k in range(begin, end):
            again += b > 0 and last[n_id[k]] == b - 1
            last[n_id[k]] = b
        if b > 0 and end > begin:
            out[b - 1] = again / (end - begin)
    return out


@njit(cache=True, nogil=True)
def _lru(reads: NDArray[np.int32], num_nodes: int, capacity: int) -> int:
    # A ring through `num_nodes`, the newest after it, the oldest before it.
    newer, older = np.full(num_nodes + 1, -1, np.int64), np.full(num_nodes + 1, -1, np.int64)
    head = num_nodes
    newer[head] = older[head] = head
    held = 0
    misses = 0
    for v in reads:
        if older[v] >= 0:
            newer[older[v]], older[newer[v]] = newer[v], older[v]
        else:
            misses += 1
            if capacity == 0:
                continue
            if held == capacity:
                out = newer[head]
                newer[head] = newer[out]
                older[newer[out]] = head
                older[out] = newer[out] = -1
            else:
                held += 1
        last = older[head]
        newer[last], older[v], newer[v], older[head] = v, last, head, v
    return misses
