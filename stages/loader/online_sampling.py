"""Sampled records drawn when they are read, without end: what fixed rounds are compared with.

Epoch e has the round that the sample artifact would store as its e-th, so the rounds it does store
come first.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stockpot.stages.codec.format import Codec
from stockpot.stages.errors import BadInput
from stockpot.stages.loader.records import Records
from stockpot.stages.pack.shard import Builder
from stockpot.stages.sample.seeds import dealt
from stockpot.stages.stage import Derived

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record
    from stockpot.stages.stage import Reader

__all__ = ["FreshRecords"]

EPOCHS = 1 << 30
"""Rounds there are: more than any training has epochs."""


class FreshRecords(Records):
    """Records of a packed, sampled split with new samples in every round; record i as of `Records`.

    Not on disk: each read samples, and gathers the features of what it found.

    Raises
    ------
    BadInput
        The split was not sampled.
    """

    fresh = True

    @classmethod
    def from_reader(cls, reader: Reader) -> FreshRecords:
        """Of a `pack` artifact, from the graph and the codes it was made of."""
        made: Any = super().from_reader(reader)
        made.begin(reader)
        return cast("FreshRecords", made)

    def begin(self, reader: Reader) -> None:
        """Take what records are made of from the parents of a pack artifact."""
        if "sampling" not in reader.facts or not isinstance(reader, Derived):
            raise BadInput(
                f"{reader.key}: expected sampled records, found all edges between their nodes",
                fix="sample: --set batches.method=labor",
            )
        inputs = {role: reader.parent(role) for role in ("graph", "partition", "records", "codes")}
        self._builder = Builder(inputs, int(reader.facts["K"]))
        self._whole_codec = Codec.from_reader(inputs["codes"])
        records = inputs["records"]
        stored = int(records.facts.get("rounds", 1))
        self._in_round = int(records.facts["records"]) // stored
        end = int(records.array("out_ptr")[self._in_round])
        outputs, at = (
            np.asarray(records.array("outputs")[:end]),
            np.asarray(records.array("input_id")[:end]),
        )
        self._outputs = outputs[np.argsort(at)]  # sorted as the split is
        clustered = records.facts.get("seeds") == "community"
        self._part = (
            np.asarray(inputs["partition"].array("part"))[self._outputs] if clustered else None
        )
        self._round: tuple[int, NDArray[np.int64], NDArray[np.int64]] = (-1, at, at)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        raise BadInput(
            "fresh records: expected one process, found a copy to another",
            fix="num_workers=0, prefetch=2",
        )

    @property
    def rounds(self) -> int:
        """As many as are asked for."""
        return EPOCHS

    @property
    def codec(self) -> Codec:
        """Description of the feature codes, with their tables."""
        return self._whole_codec

    def outputs_of(self, records: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Outputs of each of some records; every round deals them alike."""
        return self.num_outputs[records % self._in_round]

    def __len__(self) -> int:
        return EPOCHS * self._in_round

    def __getitem__(self, i: int) -> Record:
        """Record `i`, sampled now: O(edges scanned), the same each time."""
        if not 0 <= i < len(self):
            raise IndexError(f"record {i}: expected one of 0..{len(self) - 1}")
        epoch, record = divmod(i, self._in_round)
        with self._lock:
            if self._round[0] != epoch:
                self._round = (epoch, *dealt(len(self._outputs), self._in_round, epoch, self._part))
            _, members, ptr = self._round
            mine = members[ptr[record] : ptr[record + 1]]
            return self._builder.drawn(i, self._outputs[mine], mine)
