"""Training steps in order, each prepared while the one before is used; a run resumes at exactly the
next step.

`Steps` is the engine of `open_batches` and of the trainer. It imports neither torch_geometric nor
Dask.
"""

from __future__ import annotations

from contextlib import closing
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.loader.feature_cache import HeldRecords
from stockpot.stages.loader.options import Delivery, Schedule, Source
from stockpot.stages.loader.position import Position, checked_epoch, checked_place
from stockpot.stages.loader.prefetch import Prefetch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from numpy.typing import NDArray

    from stockpot.stages.loader.assembly import Assembler
    from stockpot.stages.loader.transfer import Sent, Transfer

__all__ = ["Steps", "whole_steps"]

STATE_FORMAT = 1


def whole_steps(num_records: int, per_step: int, world_size: int) -> int:
    """Steps of an epoch on each rank without a short last step and without last steps that do not
    reach every rank.

    Raises
    ------
    BadInput
        There is none.
    """
    steps = num_records // per_step
    if steps < world_size:
        fix = (
            f"per_step={max(1, num_records // world_size)}"
            if num_records >= world_size
            else "drop_last=False"
        )
        raise BadInput(
            f"drop_last: expected a whole step for every rank, found {num_records} records an "
            f"epoch for per_step "
            f"{per_step} and world_size {world_size}: no step would be left",
            fix=fix,
        )
    return steps // world_size


class Steps:
    """Steps of one packed split. Each iteration is the next epoch, 0 at first; `set_epoch` chooses
    another.

    Attributes
    ----------
    assembler : makes a step of its records.
    transfer : hands tensors to their device; the assembler's too.
    position : where the next iteration begins, and how far the one begun last has come.
    rows_read : of features, by iterations that follow a load plan.
    """

    def __init__(
        self,
        source: Source,
        assembler: Assembler,
        transfer: Transfer,
        schedule: Schedule | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        self.source, self.store = source, source.records
        self.assembler, self.transfer = assembler, transfer
        self.schedule, self.delivery = schedule or Schedule(), delivery or Delivery()
        self.position, self.rows_read = Position(), 0

    @property
    def epoch(self) -> int:
        """Epoch of the step that would be handed out next."""
        return self.position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the next iteration's epoch. The one a state was loaded for keeps its first step,
        others begin at 0.
        """
        self.position.choose_epoch(checked_epoch(epoch))

    def plan(self, epoch: int) -> list[tuple[tuple[int, ...], int]]:
        """Steps of this rank in an epoch: (records of the step, outputs of the steps all ranks take
        with it).

        A function of (order artifact, order method, shuffle, seed, epoch, per_step, rounds,
        drop_last) and, of those steps, every `world_size`th from `rank`. An epoch reads one round:
        epoch e round e mod rounds.
        """
        how, rounds = self.schedule, self.store.rounds
        num_records = len(self.store) // rounds
        if not how.shuffle:
            order: NDArray[np.integer[Any]] = np.arange(num_records)
        elif (
            given := self.source.order if self.source.loads is None else self.source.loads
        ) is not None:
            if given.rounds != rounds:
                raise Conflict(
                    f"order {given.key}: it has {given.rounds} rounds, but {self.source.store_key} "
                    f"has {rounds}",
                    fix="use the order built for this split",
                )
            order = given.records(num_records, how.seed, epoch)
            if len(order) != num_records:
                raise Conflict(
                    f"order {given.key}: it orders {len(order)} records, but "
                    f"{self.source.store_key} has {num_records}",
                    fix="use the order built for this split",
                )
        else:
            order = np.random.default_rng((how.seed, epoch)).permutation(num_records)
        order = order + epoch % rounds * num_records
        steps = [
            tuple(map(int, order[k : k + how.per_step]))
            for k in range(0, num_records, how.per_step)
        ]
        outputs = self.store.outputs_of(order)
        if how.drop_last:
            del steps[whole_steps(num_records, how.per_step, how.world_size) * how.world_size :]
        size = [
            int(part.sum())
            for part in np.split(outputs, range(how.per_step, num_records, how.per_step))
        ]
        W = how.world_size
        return [
            (steps[k], sum(size[k // W * W : k // W * W + W]))
            for k in range(how.rank, len(steps), W)
        ]

    def __len__(self) -> int:
        """Steps of an epoch on this rank: rounds are of equal size, so every epoch has as many."""
        how = self.schedule
        num_records = len(self.store) // self.store.rounds
        if how.drop_last:
            return whole_steps(num_records, how.per_step, how.world_size)
        steps = -(-num_records // how.per_step)
        return len(range(how.rank, steps, how.world_size))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position: epoch and number of the step that comes next. Prefetched ones do not
        count.

        Of several iterations at once, the one begun last counts.
        """
        return {
            "format": STATE_FORMAT,
            "store_key": self.source.store_key,
            "order_key": self._order_key(),
            "split": self.source.split,
            "seed": self.schedule.seed,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "per_step": self.schedule.per_step,
            "world_size": self.schedule.world_size,
        }

    def _order_key(self) -> str | None:
        # Without an order artifact the two other orders must not be taken for each other either.
        if self.store.fresh:
            return "fresh"  # other records in every epoch
        if not self.schedule.shuffle:
            return "file"
        given = self.source.order if self.source.loads is None else self.source.loads
        return "shuffle" if given is None else given.key

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken: the next iteration hands out exactly the step that
        would have come next.

        Raises
        ------
        Conflict
            The state is of another store, order, split, seed, per_step, world_size or format, or
            its epoch or step is out of range.
        """
        self.position.choose(*checked_place(state, self.state_dict(), len(self)))

    def __getitem__(self, i: int) -> Any:
        """Step `i` of the epoch, made now; the position is left alone."""
        return self.make(self.plan(self.epoch)[i])

    def __iter__(self) -> Iterator[Any]:
        """Steps of the next epoch, which is taken when the first is asked for."""
        epoch, done, turn = self.position.begin()
        steps = len(self)
        self.position.reached(turn, epoch, done, steps)
        with closing(self.walk(epoch, done)) as walked:
            for step in walked:
                done += 1
                self.position.reached(turn, epoch, done, steps)
                yield step
                del step

    def walk(self, epoch: int, first: int = 0) -> Generator[Any, None, None]:
        """Steps of an epoch from its step `first` on; the position is left alone."""
        plan = self.plan(epoch)[first:]
        maker = self._holding(epoch, first) if plan else self
        if self.delivery.prefetch == 0:
            yield from map(maker.make, plan)
            return
        # `maker` is these steps, with rows held for them.
        ahead = Prefetch(maker._sent, plan, self.delivery.prefetch)  # noqa: SLF001
        try:
            for sent in ahead:
                yield self.transfer.received(sent)
                del sent
        finally:
            ahead.close()

    def _holding(self, epoch: int, first: int) -> Steps:
        """These steps with the rows held that the load plan of the epoch holds before its step
        `first`.
        """
        if self.source.loads is None or not self.schedule.shuffle or self.schedule.world_size > 1:
            return self
        plan = self.source.loads.epoch(self.schedule.seed, epoch)
        held = HeldRecords(self.store, plan, first * self.schedule.per_step, self._count)
        running = copy(self)
        running.assembler = self.assembler.holding(held)
        return running

    def _count(self, rows: int) -> None:
        self.rows_read += rows

    def make(self, planned: tuple[tuple[int, ...], int]) -> Any:
        """One entry of `plan` as the step handed out."""
        return self.transfer.received(self._sent(planned))

    def _sent(self, planned: tuple[tuple[int, ...], int]) -> Sent:
        def made() -> Any:
            step = self.assembler.assemble(*planned)
            return step if self.delivery.transform is None else self.delivery.transform(step)

        return self.transfer.sent(made)
