"""Packed batches in torch's `DataLoader`: every iteration is the next epoch, in one order for any
number of workers.

A `DataLoader` tells a dataset of the streaming kind nothing of its iterations: its workers are
copies of the process, made when `iter(loader)` starts them. So the epoch is taken when the first of
them is about to be made (a hook on forks, `__getstate__` where copies are pickled), and all workers
of that iteration find it in what was copied.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import warnings
import weakref
from contextlib import closing
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from stockpot.stages.errors import BadInput
from stockpot.stages.loader.position import Position, checked_epoch, checked_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from stockpot.stages.loader.steps import Steps

__all__ = ["BatchesDataset"]

TURN_S = 0.001
NEXT, FIRST, CURRENT = range(3)
DEPTH, WIDTH = 3, 64
"""Datasets around a dataset that are looked through, and how many of a list of them."""


class BatchesDataset(IterableDataset[Any]):
    """Batches for `DataLoader(batches.dataset(), batch_size=None, num_workers=n)`; worker w makes
    steps w, w + n, ...

    Each iteration is the next epoch, the first where `batches` would have begun when the dataset
    was made; what is done with `batches` later moves nothing here. Without workers an iteration
    takes its epoch when its first step is asked for, with workers in `iter(loader)`. `set_epoch`
    also reaches workers that persist. Which steps were handed out only the caller knows, so
    `state_dict` asks for their number.
    """

    def __init__(self, batches: Steps) -> None:
        self._batches = copy(batches)
        self._batches.position = Position()
        # Epoch and first step of the next iteration, epoch of the one begun last; workers that
        # persist move it, too.
        self._place = torch.zeros(3, dtype=torch.int64).share_memory_()
        self._stand(*batches.position.begins)
        self._remember()
        _quiet_checks()

    def _remember(self) -> None:
        self._iteration: Any = (
            None  # weak reference to the DataLoader's, in the process that has it
        )
        self._given: torch.Tensor | None = (
            None  # turns of that iteration's workers; epoch and first step of the last
        )
        self._turns = 0
        _DATASETS.add(self)

    def _stand(self, epoch: int, first: int) -> None:
        self._place[:] = torch.tensor([epoch, first, epoch])

    def _take(self) -> tuple[int, int]:
        """Epoch and first step of the iteration that begins now."""
        epoch, first = int(self._place[NEXT]), int(self._place[FIRST])
        self._place[:] = torch.tensor([epoch + 1, 0, epoch])
        return epoch, first

    def __len__(self) -> int:
        return len(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the next iteration's epoch. The one a state was loaded for keeps its first step,
        others begin at 0.
        """
        if checked_epoch(epoch) != int(self._place[NEXT]):
            self._place[NEXT], self._place[FIRST] = epoch, 0
        self._place[CURRENT] = epoch

    def state_dict(self, step: int) -> dict[str, Any]:
        """State after `step` batches of the epoch begun last were received, those before a resume
        included.

        Raises
        ------
        Conflict
            An epoch has no such step.
        """
        state = self._batches.state_dict()
        place = {"epoch": int(self._place[CURRENT]), "step": step}
        epoch, step = checked_place({**state, **place}, state, len(self))
        return {**state, "epoch": epoch, "step": step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken; see `Steps.load_state_dict`."""
        self._stand(*checked_place(state, self._batches.state_dict(), len(self)))

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        if info is None:
            return self._alone()
        epoch, first = self._of_worker(info.id)
        return map(
            self._batches.make, self._batches.plan(epoch)[first:][info.id :: info.num_workers]
        )

    def _alone(self) -> Iterator[Any]:
        with closing(self._batches.walk(*self._take())) as steps:
            yield from steps

    def _of_worker(self, worker: int) -> tuple[int, int]:
        """Epoch and first step of the iteration that begins in this worker.

        The first is what the copied process was given; of the others, which workers that persist
        begin, worker 0 takes the next epoch and tells the rest.
        """
        if self._given is None:
            raise BadInput(
                "batches.dataset(): expected a torch DataLoader that is given it, alone or inside "
                "another dataset's "
                "attributes, found workers started by something else",
                fix="DataLoader(batches.dataset(), batch_size=None, num_workers=N)",
            )
        self._turns += 1
        if worker == 0 and int(self._given[0]) < self._turns:
            self._given[1:] = torch.tensor(self._take())
            self._given[0] = self._turns
        parent = multiprocessing.parent_process()
        while int(self._given[0]) < self._turns and (parent is None or parent.is_alive()):
            time.sleep(TURN_S)
        return int(self._given[1]), int(self._given[2])

    def worker_starts(self) -> None:
        """Take the epoch of a DataLoader's iteration where it starts its first worker now, in a
        caller of this.
        """
        iteration = _iteration_around(self)
        if iteration is None or (self._iteration is not None and self._iteration() is iteration):
            return
        self._iteration = weakref.ref(iteration)
        self._given = torch.tensor([1, *self._take()]).share_memory_()

    def __getstate__(self) -> dict[str, Any]:
        self.worker_starts()
        return {"batches": self._batches, "place": self._place, "given": self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._batches, self._place = state["batches"], state["place"]
        self._remember()
        self._given = state["given"]


_DATASETS: weakref.WeakSet[BatchesDataset] = weakref.WeakSet()


def _iteration_around(dataset: BatchesDataset) -> Any:
    """The iterator of a DataLoader over `dataset` that is being made by a caller of this; None
    where there is none.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - torch has no hook of its own
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_code.co_name == "__init__" else None
        if (
            owner is not None
            and hasattr(owner, "_num_workers")
            and _holds(getattr(owner, "_dataset", None), dataset)
        ):
            return owner
        frame = frame.f_back
    return None


def _holds(outer: Any, dataset: BatchesDataset, depth: int = DEPTH) -> bool:
    """Whether `outer` is the dataset or one around it, which has it or a list with it as an
    attribute.
    """
    if outer is dataset or depth == 0 or not isinstance(outer, Dataset):
        return outer is dataset
    values = vars(outer).values()
    inner = [
        one
        for value in values
        for one in (value[:WIDTH] if isinstance(value, (list, tuple)) else (value,))
    ]
    return any(_holds(one, dataset, depth - 1) for one in inner)


def _quiet_checks() -> None:
    """Spend torch's one warning that it does not check CSR tensors: those that workers send had
    checksums.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        zero = torch.zeros(1, dtype=torch.int64)
        torch.sparse_compressed_tensor(
            zero, zero[:0], torch.zeros(0), (0, 0), layout=torch.sparse_csr
        )


def _before_fork() -> None:
    for dataset in list(_DATASETS):
        dataset.worker_starts()


os.register_at_fork(before=_before_fork)
