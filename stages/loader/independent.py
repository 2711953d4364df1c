"""Training steps that ranks take together, each computing its own outputs by itself: no row crosses, some are copied.

A step of at least as many records as ranks is dealt out record by record, and nothing is read twice. Of one of fewer
every rank computes its own outputs of every record, with all that they reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.exchange.alone import dealt, narrowed
from stockpot.stages.exchange.counts import feature_bytes
from stockpot.stages.exchange.step import ShareStep
from stockpot.stages.loader.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.stages.pack.record import Record
    from stockpot.stages.stage import Reader

__all__ = ["IndependentSteps"]


class IndependentSteps(Steps):
    """Steps of one packed split, a rank's own outputs of each with all rows they need.

    Parameters
    ----------
    ranks, member : how many there are, and which this is. `rank` and `world_size` of `Steps` stay 0 and 1.

    Attributes
    ----------
    feature_bytes : of the steps handed out or prepared so far.
    """

    def __init__(self, *args: Any, ranks: int, member: int, **options: Any) -> None:
        super().__init__(*args, **options)
        if not 0 <= member < ranks:
            raise BadInput(f"rank: expected 0 <= rank < {ranks}, found {member}")
        self.ranks, self.member = ranks, member
        self.feature_bytes = 0

    @classmethod
    def of_rank(cls, reader: Reader, order: Reader | None, *, ranks: int, rank: int, **options: Any) -> Any:
        """One rank's steps of a `pack` artifact."""
        return cls.from_reader(reader, order, ranks=ranks, member=rank, **options)

    def assemble(self, records: Sequence[int], num_outputs: int) -> ShareStep:
        """The own part of the step of these records."""
        step = super().assemble(records, num_outputs)
        labelled = self.store.num_labelled[list(records)]
        return ShareStep(**vars(step), num_labelled=int(labelled.sum()))

    def parts(self, records: Sequence[int]) -> Sequence[Record]:
        """Whole records where there is one for every rank, else the own outputs of each with what they reach."""
        mine = dealt(len(records), self.ranks, self.member)
        found = [self.store[i] for i in records[mine]] if mine is not None else [self._part(i) for i in records]
        self.feature_bytes += sum(feature_bytes(part, self.num_layers) for part in found)
        return found

    def _part(self, i: int) -> Record:
        part = narrowed(self.store.stored(i), self.ranks, self.member, self.num_layers)
        return self.store.gathered(part) if self.store.gathers else part
