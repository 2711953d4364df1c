"""How the steps of a packed split are made: by one process whole, or by a rank that makes its part
of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.loader.assembly import Assembly
from stockpot.stages.loader.options import Delivery
from stockpot.stages.loader.steps import Steps

if TYPE_CHECKING:
    from stockpot.stages.loader.assembly import Assembler
    from stockpot.stages.loader.options import Form, RankPart, Schedule, Source

__all__ = ["steps_of"]


def steps_of(
    source: Source,
    form: Form,
    schedule: Schedule | None = None,
    delivery: Delivery | None = None,
    member: RankPart | None = None,
) -> Steps:
    """Steps of a packed split; of one of several ranks where `member` says so.

    Raises
    ------
    BadInput
        The device is not there, or the rows are linked for another number of ranks.
    """
    delivery = delivery or Delivery()
    transfer = delivery.transfer()
    base = Assembly(source.records, form, transfer)
    assembler: Assembler = base
    if member is not None and member.exchange is not None:
        from stockpot.stages.loader.cooperative import CooperativeAssembly

        assembler = CooperativeAssembly.of_member(base, member, member.exchange)
    elif member is not None:
        from stockpot.stages.loader.independent import IndependentAssembly

        assembler = IndependentAssembly(base, member.ranks, member.rank)
    return Steps(source, assembler, transfer, schedule, delivery)
