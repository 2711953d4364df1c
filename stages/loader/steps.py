"""Training steps in order, each prepared while the one before is used; a run resumes at exactly the next step.

`Steps` is the engine of `open_batches` and of the trainer. It imports neither torch_geometric nor Dask.
"""

from __future__ import annotations

from contextlib import closing
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.loader.assembly import Assembly
from stockpot.stages.loader.feature_cache import HeldRecords
from stockpot.stages.loader.position import Position, checked_epoch, checked_place
from stockpot.stages.loader.prefetch import Prefetch
from stockpot.stages.loader.records import Records
from stockpot.stages.loader.transfer import Transfer, checked_device
from stockpot.stages.loadplan.artifact import LoadPlan
from stockpot.stages.order.artifact import Order
from stockpot.stages.pack.layers import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from numpy.typing import NDArray

    from stockpot.stages.loader.transfer import Sent
    from stockpot.stages.stage import Reader

__all__ = ["Order", "Steps", "whole_steps"]

STATE_FORMAT = 1


def whole_steps(num_records: int, per_step: int, world_size: int) -> int:
    """Steps of an epoch on each rank without a short last step and without last steps that do not reach every rank.

    Raises
    ------
    BadInput
        There is none.
    """
    steps = num_records // per_step
    if steps < world_size:
        fix = f"per_step={max(1, num_records // world_size)}" if num_records >= world_size else "drop_last=False"
        raise BadInput(
            f"drop_last: expected a whole step for every rank, found {num_records} records an epoch for per_step "
            f"{per_step} and world_size {world_size}: no step would be left",
            fix=fix,
        )
    return steps // world_size


class Steps(Assembly):
    """Steps of one packed split. Each iteration is the next epoch, 0 at first; `set_epoch` chooses another.

    Parameters
    ----------
    records : the records of the split.
    store_key, split : of the artifact they come from, kept in the state.
    order : order artifact; where None, `shuffle` draws a permutation from (seed, epoch).
    loads : load plan artifact, whose order then counts: where one process walks the steps of an epoch, features come
        from the rows that are held as planned. Ranks, and steps asked for one by one, gather the same features.
    layers : depth of the model: a step is trimmed to it.
    adj, normalization, mass, self_loops : values of the matrices, see `stockpot.stages.pack.layers.Weights`.
    transposes : what a backward pass will read of them. none | inner: but of the first matrix, where the features get
        no gradient through it | all | places: all, with the places of their entries (`stockpot.stages.step.Adj`).
    per_step : records joined in a step.
    shuffle : False keeps the order of the file.
    drop_last : leave out a last step of fewer records, and last steps that do not reach every rank; refused where none
        is left.
    rank, world_size : rank r takes steps r, r + W, ...
    prefetch : steps prepared ahead by a thread; 0 prepares each when it is asked for.
    dtype, device : of the tensors; values are computed in float32 and converted last.
    pin_memory : pinned tensors on the CPU; copies to a GPU start from pinned memory in any case.
    hag : multiply by the shared partial sums of records that hold them; for models that read no single edge.
    transform : called with every step, on the preparing thread; never part of a key.
    coded : `x` stays codes (`stages.codec.coded_rows.Coded`) where a layer may be cheaper on them than on decoded rows.

    Attributes
    ----------
    position : where the next iteration begins, and how far the one begun last has come.
    held : in the steps of an iteration that follows a load plan: its records.
    rows_read : of features, by iterations that follow a load plan.
    """

    def __init__(
        self,
        records: Records,
        *,
        store_key: str,
        split: str,
        layers: int,
        order: Order | None = None,
        loads: LoadPlan | None = None,
        adj: str = "plain",
        normalization: str = "sym",
        mass: str = "none",
        self_loops: bool = True,
        transposes: str = "all",
        per_step: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 2,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        pin_memory: bool = False,
        hag: bool = False,
        transform: Callable[[Any], Any] | None = None,
        coded: bool = False,
    ) -> None:
        for name, value, least in (
            ("layers", layers, 1),
            ("per_step", per_step, 1),
            ("prefetch", prefetch, 0),
            ("seed", seed, 0),
            ("rank", rank, 0),
            ("world_size", world_size, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadInput(f"{name}: expected a whole number from {least}, found {value!r}")
        if rank >= world_size:
            raise BadInput(f"rank: expected 0 <= rank < world_size, found rank {rank} of {world_size}")
        weights = Weights(adj, normalization, mass, self_loops)
        transfer = Transfer(checked_device(device, pin=pin_memory), pin=pin_memory)
        super().__init__(records, layers, weights, transposes, dtype, transfer, hag=hag, coded=coded)
        self.store_key, self.split, self.order, self.loads = store_key, split, order, loads
        self.rows_read = 0
        self.per_step, self.seed, self.transform = per_step, seed, transform
        self.shuffle, self.drop_last, self.prefetch = shuffle, drop_last, prefetch
        self.rank, self.world_size = rank, world_size
        self.position = Position()

    @classmethod
    def from_reader(
        cls, reader: Reader, order: Reader | None = None, *, layers: int, loads: Reader | None = None, **options: Any
    ) -> Steps:
        """Steps of a `pack` artifact, in the order of an `order` artifact, by a `loadplan` where they are given.

        Their state names both by digest: a training goes on where they were rebuilt, under whatever key, byte by byte.
        """
        records = Records.from_reader(reader)
        split = str(reader.facts["split"])
        found = None if order is None else Order.from_reader(order, order.digest)
        planned = None if loads is None else LoadPlan.from_reader(loads, loads.digest)
        given: dict[str, Any] = {"order": found, "loads": planned, "layers": layers}
        return cls(records, store_key=reader.digest, split=split, **given, **options)

    @property
    def epoch(self) -> int:
        """Epoch of the step that would be handed out next."""
        return self.position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the next iteration's epoch. The one a state was loaded for keeps its first step, others begin at 0."""
        self.position.choose_epoch(checked_epoch(epoch))

    def plan(self, epoch: int) -> list[tuple[tuple[int, ...], int]]:
        """Steps of this rank in an epoch: (records of the step, outputs of the steps all ranks take with it).

        A function of (order artifact, order method, shuffle, seed, epoch, per_step, rounds, drop_last) and, of those
        steps, every `world_size`th from `rank`. An epoch reads one round: epoch e round e mod rounds.
        """
        rounds = self.store.rounds
        num_records = len(self.store) // rounds
        if not self.shuffle:
            order: NDArray[np.integer[Any]] = np.arange(num_records)
        elif (given := self.order if self.loads is None else self.loads) is not None:
            if given.rounds != rounds:
                raise Conflict(
                    f"order {given.key}: it has {given.rounds} rounds, but {self.store_key} has {rounds}",
                    fix="use the order built for this split",
                )
            order = given.records(num_records, self.seed, epoch)
            if len(order) != num_records:
                raise Conflict(
                    f"order {given.key}: it orders {len(order)} records, but {self.store_key} has {num_records}",
                    fix="use the order built for this split",
                )
        else:
            order = np.random.default_rng((self.seed, epoch)).permutation(num_records)
        order = order + epoch % rounds * num_records
        steps = [tuple(map(int, order[k : k + self.per_step])) for k in range(0, num_records, self.per_step)]
        outputs = self.store.outputs_of(order)
        if self.drop_last:
            del steps[whole_steps(num_records, self.per_step, self.world_size) * self.world_size :]
        size = [int(part.sum()) for part in np.split(outputs, range(self.per_step, num_records, self.per_step))]
        W = self.world_size
        return [(steps[k], sum(size[k // W * W : k // W * W + W])) for k in range(self.rank, len(steps), W)]

    def __len__(self) -> int:
        """Steps of an epoch on this rank: rounds are of equal size, so every epoch has as many."""
        num_records = len(self.store) // self.store.rounds
        if self.drop_last:
            return whole_steps(num_records, self.per_step, self.world_size)
        steps = -(-num_records // self.per_step)
        return len(range(self.rank, steps, self.world_size))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position: epoch and number of the step that comes next. Prefetched ones do not count.

        Of several iterations at once, the one begun last counts.
        """
        return {
            "format": STATE_FORMAT,
            "store_key": self.store_key,
            "order_key": self._order_key(),
            "split": self.split,
            "seed": self.seed,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "per_step": self.per_step,
            "world_size": self.world_size,
        }

    def _order_key(self) -> str | None:
        # Without an order artifact the two other orders must not be taken for each other either.
        if self.store.fresh:
            return "fresh"  # other records in every epoch
        if not self.shuffle:
            return "file"
        given = self.order if self.loads is None else self.loads
        return "shuffle" if given is None else given.key

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken: the next iteration hands out exactly the step that would have come next.

        Raises
        ------
        Conflict
            The state is of another store, order, split, seed, per_step, world_size or format, or its epoch or step is
            out of range.
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
        if self.prefetch == 0:
            yield from map(maker.make, plan)
            return
        ahead = Prefetch(maker._sent, plan, self.prefetch)  # noqa: SLF001 - these steps, holding rows
        try:
            for sent in ahead:
                yield self.transfer.received(sent)
                del sent
        finally:
            ahead.close()

    def _holding(self, epoch: int, first: int) -> Steps:
        """These steps with the rows held that the load plan of the epoch holds before its step `first`."""
        if self.loads is None or not self.shuffle or self.world_size > 1:
            return self
        plan = self.loads.epoch(self.seed, epoch)
        running = copy(self)
        running.coded, running.held = False, HeldRecords(self.store, plan, first * self.per_step, self._count)
        return running

    def _count(self, rows: int) -> None:
        self.rows_read += rows

    def make(self, planned: tuple[tuple[int, ...], int]) -> Any:
        """One entry of `plan` as the step handed out."""
        return self.transfer.received(self._sent(planned))

    def _sent(self, planned: tuple[tuple[int, ...], int]) -> Sent:
        def made() -> Any:
            step = self.assemble(*planned)
            return step if self.transform is None else self.transform(step)

        return self.transfer.sent(made)
