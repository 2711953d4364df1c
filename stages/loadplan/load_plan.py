"""A load plan read back: for any epoch its order, and for each record what is read and where its
rows stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = ["ARRAYS", "LoadPlan", "PlannedEpoch"]

ARRAYS = ("order", "row_ptr", "slot", "read_ptr", "read", "read_slot")
"""Arrays of every planned epoch; their names in the artifact end in its number."""


@dataclass(frozen=True)
class PlannedEpoch:
    """What is read for each of the R records of an epoch, in its order, from an empty cache on.

    Attributes
    ----------
    cache : rows that are held.
    order : i4[R], records of the round.
    row_ptr, slot : i8[R + 1], i4[rows], slot of every row of each record, in the order of its
        `n_id`.
    read_ptr, read, read_slot : i8[R + 1], i4 or i8[reads] ascending in each record, i4[reads]:
        nodes whose features are read for a record, and the slots they go to; what stood there is
        not needed before it would be read again.
    """

    cache: int
    order: NDArray[np.int32]
    row_ptr: NDArray[np.int64]
    slot: NDArray[np.int32]
    read_ptr: NDArray[np.int64]
    read: NDArray[np.integer]
    read_slot: NDArray[np.int32]

    def slots_of(self, at: int) -> NDArray[np.int32]:
        """Slots of the rows of the record at place `at`; none past the end."""
        if at >= len(self.order):
            return self.slot[:0]
        return self.slot[self.row_ptr[at] : self.row_ptr[at + 1]]

    def reads_of(self, at: int) -> tuple[NDArray[np.integer], NDArray[np.int32]]:
        """(nodes to read, their slots) for the record at place `at`."""
        span = slice(int(self.read_ptr[at]), int(self.read_ptr[at + 1]))
        return self.read[span], self.read_slot[span]

    def resident(self, at: int) -> tuple[NDArray[np.integer], NDArray[np.int32]]:
        """(nodes, slots) that are held before the record at place `at`: O(cache + reads so far)."""
        node = np.full(self.cache, -1, np.int64)
        done = int(self.read_ptr[at])
        # Of several rows for one slot the last stays, whatever order they would be assigned in.
        slots, first = np.unique(self.read_slot[:done][::-1], return_index=True)
        node[slots] = self.read[:done][::-1][first]
        held = np.flatnonzero(node >= 0)
        return node[held].astype(self.read.dtype), held.astype(np.int32)


@dataclass(frozen=True)
class LoadPlan:
    """Planned epochs, used in turn.

    Attributes
    ----------
    key : of the artifact. rounds : sets of records that epochs use in turn.
    """

    key: str
    rounds: int
    epochs: tuple[PlannedEpoch, ...]

    @classmethod
    def from_reader(cls, reader: Reader, key: str | None = None) -> LoadPlan:
        """The plan of an artifact of stage `loadplan`, under its own key where none is given."""
        facts = reader.facts
        epochs = tuple(
            PlannedEpoch(int(facts["cache"]), *(reader.array(f"{name}-{p:02d}") for name in ARRAYS))
            for p in range(int(facts["epochs"]))
        )
        return cls(reader.key if key is None else key, int(facts["rounds"]), epochs)

    def epoch(self, seed: int, epoch: int) -> PlannedEpoch:
        """The plan of an epoch. Seeds begin at different ones; the round is that of the epoch."""
        return self.epochs[(epoch + seed * self.rounds) % len(self.epochs)]

    def records(self, num_records: int, seed: int, epoch: int) -> NDArray[np.int32]:
        """All records of the epoch's round once, counted from its first; `num_records` is as of
        `Order.records`.
        """
        del num_records
        return self.epoch(seed, epoch).order
