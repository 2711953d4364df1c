"""What ranks read, exchange and would read alone, for models of any depth: the figures a choice between the two needs.

Cooperating ranks read every row of a record once and exchange what they do not own. Alone, each would read all that its
own outputs reach, rows that others read too (arXiv 2310.12403, sections 2 and 3: independent mini-batches of the same
outputs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from stages.exchange.piece import owned
from stages.ingest.csr import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stages.exchange.links import Links
    from stages.pack.record import Record

__all__ = ["crossing_bytes", "depths", "received_by_level"]


@njit(cache=True, nogil=True)
def _reached(
    first: int,
    last: int,
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    queue: NDArray[np.int32],
    seen: NDArray[np.bool_],
    out: NDArray[np.int64],
) -> None:
    """Breadth-first from rows first:last; out[d] = rows within d edges, for every d it has; `seen` comes False."""
    start, end = 0, 0
    for i in range(first, last):
        queue[end] = i
        seen[i] = True
        end += 1
    for d in range(out.size):
        out[d] = end
        level = end
        for k in range(start, level):
            i = queue[k]
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                if not seen[j]:
                    seen[j] = True
                    queue[end] = j
                    end += 1
        start = level


def depths(record: Record, ranks: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows together i8[most + 1], rows alone i8[ranks, most + 1]) that a model of d layers reads of one record.

    Together: rows of hops <= d, each read by its owner. Alone: what the outputs of each rank reach in d edges, which
    `ranks` processes read that share no row. O(ranks * (nodes + edges)).
    """
    ends = np.cumsum(record.num_sampled_nodes, dtype=np.int64)
    together = ends[np.minimum(np.arange(most + 1), ends.size - 1)]
    alone = np.zeros((ranks, most + 1), np.int64)
    queue = np.empty(record.num_nodes, np.int32)
    for rank in range(ranks):
        mine = owned(record.block_ptr, ranks, rank)
        seen = np.zeros(record.num_nodes, np.bool_)
        first, last = int(mine.start[0]), int(mine.stop[0])
        _reached(first, last, frozen(record.indptr), frozen(record.indices), queue, seen, alone[rank])
    return together, alone


def received_by_level(found: Sequence[Links], most: int) -> NDArray[np.int64]:
    """i8[most]: rows that cross for the layer that computes hops <= h, over all ranks."""
    level = np.concatenate([link.level for link in found])
    return np.array([int((level <= h).sum()) for h in range(most)], np.int64)


def crossing_bytes(received: Sequence[int], layers: int, row_bytes: int, hidden: int) -> int:
    """Bytes that cross the interconnect in one training epoch.

    Parameters
    ----------
    received : of `received_by_level`, over the records of the epoch.
    row_bytes : of a row at the first layer, which has no gradient. hidden : f4 values of a row at the others, which
        cross forward and, as gradients, backward.
    """
    at = [int(received[min(h, len(received) - 1)]) for h in range(layers)]
    return at[layers - 1] * row_bytes + sum(2 * 4 * hidden * rows for rows in at[: layers - 1])
