"""Training steps that ranks take together, each computing its own outputs by itself: no row
crosses, some are copied.

A step of at least as many records as ranks is dealt out record by record, and nothing is read
twice. Of one of fewer every rank computes its own outputs of every record, with all that they
reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.exchange.alone import dealt, narrowed
from stockpot.stages.exchange.rank_reads import feature_bytes
from stockpot.stages.exchange.rank_step import ShareStep
from stockpot.stages.loader.assembly import Assembler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.stages.loader.assembly import Assembly
    from stockpot.stages.pack.record import Record

__all__ = ["IndependentAssembly"]


class IndependentAssembly(Assembler):
    """Makes a rank's own outputs of each step, with all rows they need.

    Attributes
    ----------
    feature_bytes : of the steps handed out or prepared so far.
    """

    def __init__(self, base: Assembly, ranks: int, member: int) -> None:
        self.base, self.ranks, self.member = base, ranks, member
        self.feature_bytes = 0

    def assemble(self, records: Sequence[int], num_outputs: int) -> ShareStep:
        """The own part of the step of these records."""
        del num_outputs
        step = self.base.joined(tuple(records), self.parts(records))
        return ShareStep(
            **vars(step), num_labelled=int(self.base.store.num_labelled[list(records)].sum())
        )

    def parts(self, records: Sequence[int]) -> Sequence[Record]:
        """Whole records where there is one for every rank, else the own outputs of each with what
        they reach.
        """
        mine = dealt(len(records), self.ranks, self.member)
        found = (
            [self.base.store[i] for i in records[mine]]
            if mine is not None
            else [self._part(i) for i in records]
        )
        self.feature_bytes += sum(feature_bytes(part, self.base.form.layers) for part in found)
        return found

    def _part(self, i: int) -> Record:
        part = narrowed(self.base.store.stored(i), self.ranks, self.member, self.base.form.layers)
        return self.base.store.gathered(part) if self.base.store.gathers else part
