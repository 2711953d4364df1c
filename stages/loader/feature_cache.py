"""Records of an epoch whose features come from rows that are held as its load plan says; no table
of rows is searched.

The plan reads a row when it is first needed, into the slot of a row that is needed latest, or never
again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec.format import add_further, decode
from stockpot.stages.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.loader.records import Records
    from stockpot.stages.loadplan.load_plan import PlannedEpoch
    from stockpot.stages.pack.record import Record

__all__ = ["HeldRecords"]


class HeldRecords:
    """Records by index, in the order of the plan; `fill` then gives the features of each, in the
    same order.

    Holds f4[cache rows, D], the rows as the codec decodes them.

    Parameters
    ----------
    records : of the split, which gather their features.
    plan : of the epoch.
    first : records of it that are already done: what the plan holds by then is read at once.
    count : told how many rows were read.
    """

    def __init__(
        self, records: Records, plan: PlannedEpoch, first: int, count: Callable[[int], None]
    ) -> None:
        self._records, self._plan, self._count = records, plan, count
        self._round = len(records) // records.rounds
        self._asked = self._filled = first
        self._like = records.stored(0)  # what rows of features are asked for with
        self._rows = np.empty((plan.cache, records.codec.num_features), np.float32)
        if first:
            self._read(*plan.resident(first))

    def __getitem__(self, i: int) -> Record:
        """Record `i`, without features.

        Raises
        ------
        Conflict
            It is not the next one of the plan, or not the record that was planned for.
        """
        at = self._asked
        expected = int(self._plan.order[at]) if at < len(self._plan.order) else -1
        record = self._records.stored(i)
        if i % self._round != expected or record.num_nodes != len(self._plan.slots_of(at)):
            raise Conflict(
                f"load plan: record {i} of {record.num_nodes} rows is not record {at + 1} of the "
                f"epoch",
                fix="use the load plan built for this split",
            )
        self._asked += 1
        return record

    def fill(self, n: int, out: NDArray[np.float32], rows: NDArray[np.int32] | None) -> None:
        """Features of the first `n` nodes of the next record into `out`, its first rows, or `rows`
        of it.
        """
        at = self._filled
        self._filled += 1
        self._read(*self._plan.reads_of(at))
        slots = self._plan.slots_of(at)[:n]
        if rows is None:
            np.take(self._rows, slots, axis=0, out=out[:n], mode="clip")
        else:
            out[rows] = self._rows[slots]

    def _read(self, nodes: NDArray[np.integer], slots: NDArray[np.int32]) -> None:
        """Decode rows of the features into their slots."""
        codec = self._records.codec
        part = self._records.gathered(replace(self._like, n_id=nodes))
        decode(codec, part.codes, part.code_indptr, out=self._rows, rows=slots)
        if codec.further is not None and part.codes_1 is not None:
            add_further(codec, part.codes_1, slots[part.codes_1_rows], self._rows)
        self._count(len(nodes))
