"""What a loader is asked for, in four parts: from what, for which model, in which order, and how it
is handed out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from stockpot.stages.errors import BadInput
from stockpot.stages.loader.records import Records
from stockpot.stages.loader.transfer import Transfer, checked_device
from stockpot.stages.loadplan.load_plan import LoadPlan
from stockpot.stages.order.epoch_order import Order
from stockpot.stages.pack.layers import Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from stockpot.stages.stage import Reader

__all__ = ["Delivery", "Form", "RankPart", "Schedule", "Source"]

TRANSPOSES = ("none", "inner", "all", "places")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{name}: expected a whole number from {least}, found {value!r}")


@dataclass(frozen=True)
class Source:
    """Records of one packed split.

    Attributes
    ----------
    store_key, split : of the artifact they come from, kept in the loader's state.
    order : order artifact; where None, a permutation is drawn from (seed, epoch).
    loads : load plan artifact, whose order then counts: where one process walks the steps of an
        epoch, features come from the rows that are held as planned. Ranks, and steps asked for one
        by one, gather the same features.
    """

    records: Records
    store_key: str
    split: str
    order: Order | None = None
    loads: LoadPlan | None = None

    @classmethod
    def from_reader(
        cls, reader: Reader, order: Reader | None = None, loads: Reader | None = None
    ) -> Source:
        """Of a `pack` artifact, in the order of an `order` artifact, by a `loadplan` where they are
        given.

        All are named by digest: a training goes on where they were rebuilt, under whatever key,
        byte by byte.
        """
        return cls(
            Records.from_reader(reader),
            reader.digest,
            str(reader.facts["split"]),
            None if order is None else Order.from_reader(order, order.digest),
            None if loads is None else LoadPlan.from_reader(loads, loads.digest),
        )


@dataclass(frozen=True)
class Form:
    """What the model reads.

    Attributes
    ----------
    layers : depth of the model: a step is trimmed to it. 0: it reads outputs alone, and steps have
        no matrices.
    weights : values of the matrices.
    transposes : what a backward pass will read of them. none | inner: but of the first matrix,
        where the features get no gradient through it | all | places: all, with the places of their
        entries (`stockpot.stages.step.Adj`).
    hag : multiply by the shared partial sums of records that hold them; for models that read no
        single edge.
    coded : `x` stays codes (`stages.codec.coded_rows.Coded`) where a layer may be cheaper on them
        than on decoded rows.
    dtype : of the tensors; values are computed in float32 and converted last.
    """

    layers: int
    weights: Weights = field(default_factory=Weights)
    transposes: str = "all"
    hag: bool = False
    coded: bool = False
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        _whole("layers", self.layers, 0)
        if self.transposes not in TRANSPOSES:
            raise BadInput(
                f"transposes: expected {' | '.join(TRANSPOSES)}, found {self.transposes}"
            )


@dataclass(frozen=True)
class Schedule:
    """Which records a step has, and which steps this process takes.

    Attributes
    ----------
    per_step : records joined in a step.
    shuffle : False keeps the order of the file.
    drop_last : leave out a last step of fewer records, and last steps that do not reach every rank;
        refused where none is left.
    rank, world_size : rank r takes steps r, r + W, ...
    """

    per_step: int = 1
    shuffle: bool = True
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name, least in (("per_step", 1), ("seed", 0), ("rank", 0), ("world_size", 1)):
            _whole(name, getattr(self, name), least)
        if self.rank >= self.world_size:
            raise BadInput(
                f"rank: expected 0 <= rank < world_size, found rank {self.rank} of "
                f"{self.world_size}"
            )


@dataclass(frozen=True)
class Delivery:
    """How steps reach whoever uses them.

    Attributes
    ----------
    prefetch : steps prepared ahead by a thread; 0 prepares each when it is asked for.
    device : of the tensors. pin_memory : pinned ones on the CPU; copies to a GPU start from pinned
        memory in any case.
    transform : called with every step, on the preparing thread; never part of a key.
    """

    prefetch: int = 2
    device: torch.device | str = "cpu"
    pin_memory: bool = False
    transform: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        _whole("prefetch", self.prefetch, 0)

    def transfer(self) -> Transfer:
        """The way to the device; refuses one that is not there."""
        return Transfer(checked_device(self.device, pin=self.pin_memory), pin=self.pin_memory)


@dataclass(frozen=True)
class RankPart:
    """One of several ranks that take every step together; `rank` and `world_size` of `Schedule`
    stay 0 and 1.

    Attributes
    ----------
    rank, ranks : which one this is, and how many there are.
    exchange : artifact of stage `exchange` for so many ranks: each reads the rows it owns, others
        send it theirs. None: each reads all that its own outputs need.
    crossing : most bytes of a stored feature row that cross at the first layer as they are; of
        longer ones the decoded or projected row does.
    """

    rank: int
    ranks: int
    exchange: Reader | None = None
    crossing: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise BadInput(f"rank: expected 0 <= rank < {self.ranks}, found {self.rank}")
