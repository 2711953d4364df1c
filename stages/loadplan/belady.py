"""Fewest rows read through a cache, for batches that are known beforehand: the row used latest
gives way (Belady, MIN).

All rows of a batch are held while it is used, so a plan says for each batch which rows to read,
into which slots, and the slot of every row of it; what stood in a slot before is what was evicted.
Walked batch by batch: first backwards by `note_next_uses`, then forwards by `Cache.step`, so that
one batch and a few bytes a node are all that is in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cache", "note_next_uses"]


@njit(cache=True, nogil=True)
def note_next_uses(
    nodes: NDArray[np.integer],
    batch: int,
    batches: int,
    last: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    """Batch in which each node of `batch` is used next, `batches` for none; to be called from the
    last batch back.

    Parameters
    ----------
    nodes : int[n], distinct.
    last : i4[N], `batches` everywhere before the first call; the batch of the earliest use seen so
        far.
    out : i4[n], filled.
    """
    for i in range(nodes.size):
        out[i] = min(last[nodes[i]], batches)
        last[nodes[i]] = batch


class Cache:
    """The rows held between batches.

    Parameters
    ----------
    rows : that it holds, at least those of the largest batch.
    num_nodes, batches : N, R.

    Attributes
    ----------
    slot : i4[N], where each node is held, -1 where it is not.
    """

    def __init__(self, rows: int, num_nodes: int, batches: int) -> None:
        self.slot = np.full(num_nodes, -1, np.int32)
        self._node = np.full(rows, -1, np.int64)
        self._after = np.full(rows, -1, np.int32)
        # Slots by the batch that uses them next, the last list for those that none does; then
        # (slots filled, the latest batch of a list that may not be empty).
        self._first = np.full(batches + 1, -1, np.int32)
        self._at = np.array([0, 0], np.int64)

    def step(
        self,
        nodes: NDArray[np.integer],
        batch: int,
        next_use: NDArray[np.int32],
        slots: NDArray[np.int32],
    ) -> tuple[NDArray[np.integer], NDArray[np.int32]]:
        """(nodes to read, ascending, and their slots) of the next batch; O(n log n) and the lists
        that ran empty.

        Of sets of rows that each must be held at once, reading only what is missing, and evicting
        what is used latest among what the batch does not need, is optimal: exchange any other
        choice for it and no later read is added.

        Parameters
        ----------
        nodes : int[n], distinct. batch : its number, from 0, one more each call. next_use : of
            `note_next_uses`.
        slots : i4[n], filled with the slot of each node.
        """
        missing = np.sort(nodes[self.slot[nodes] < 0])
        into = np.empty(len(missing), np.int32)
        if not _step(
            nodes,
            batch,
            next_use,
            slots,
            missing,
            into,
            self.slot,
            self._node,
            self._after,
            self._first,
            self._at,
        ):
            raise ValueError(
                f"a cache of {len(self._node)} rows cannot hold a batch of {len(nodes)}"
            )
        return missing, into


@njit(cache=True, nogil=True)
def _step(
    nodes: NDArray[np.integer],
    batch: int,
    next_use: NDArray[np.int32],
    slots: NDArray[np.int32],
    missing: NDArray[np.integer],
    into: NDArray[np.int32],
    slot: NDArray[np.int32],
    node: NDArray[np.int64],
    after: NDArray[np.int32],
    first: NDArray[np.int32],
    at: NDArray[np.int64],
) -> bool:
    batches, filled, latest = first.size - 1, at[0], at[1]
    first[batch] = -1  # its rows are those of this batch that are held: none of them may go
    for i in range(missing.size):
        if filled < node.size:
            s = np.int32(filled)
            filled += 1
        else:
            where = batches
            if first[batches] < 0:
                while latest > batch and first[latest] < 0:
                    latest -= 1
                where = latest
            if where <= batch:
                return False
            s = first[where]
            first[where] = after[s]
            slot[node[s]] = -1
        node[s] = missing[i]
        slot[missing[i]] = s
        into[i] = s
    for i in range(nodes.size):
        s = slot[nodes[i]]
        slots[i] = s
        after[s] = first[next_use[i]]
        first[next_use[i]] = s
        if latest < next_use[i] < batches:
            latest = next_use[i]
    at[0], at[1] = filled, latest
    return True
