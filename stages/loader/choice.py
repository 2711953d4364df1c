"""Which steps a packed split is read by: one process's, a rank's part of each, or a rank's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.stages.loader.steps import Steps
    from stockpot.stages.stage import Reader

__all__ = ["steps_of"]


def steps_of(
    reader: Reader,
    order: Reader | None = None,
    *,
    exchange: Reader | None = None,
    ranks: int | None = None,
    **options: Any,
) -> Steps:
    """Training steps of a `pack` artifact; `options` as of `Steps.from_reader`.

    With an artifact of stage `exchange` made for it: one rank's part of each step, which others complete
    (`CooperativeSteps`). With a number of ranks: one that is complete (`IndependentSteps`).
    """
    if exchange is not None:
        from stockpot.stages.loader.cooperative import CooperativeSteps

        return CooperativeSteps.of_rank(reader, exchange, order, **options)
    if ranks is not None:
        from stockpot.stages.loader.independent import IndependentSteps

        return IndependentSteps.of_rank(reader, order, ranks=ranks, **options)
    from stockpot.stages.loader.steps import Steps

    return Steps.from_reader(reader, order=order, **options)
