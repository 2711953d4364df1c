"""Each iteration is the next epoch, and a state says exactly which step comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stockpot.stages.errors import BadInput, Conflict

__all__ = ["MOST_EPOCHS", "Position", "checked_epoch", "checked_place"]

MOST_EPOCHS = 2**31
"""Epochs are numbered below this."""

ANEW = "load what state_dict() returned, or start an epoch anew: set_epoch(E)"


class Position:
    """Where the next iteration begins, and how far the one that was begun last has come.

    Attributes
    ----------
    epoch, step : of the step that would be handed out next. After the last step of an epoch: the
        next one and 0.
    begins : epoch and step that the next iteration begins with.
    """

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self.epoch, self.step = epoch, step
        self.begins = epoch, step
        self._turn = 0  # of the iteration begun last; what earlier ones hand out moves nothing

    def choose(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration begin there."""
        self.epoch, self.step = self.begins = epoch, step
        self._turn += 1

    def choose_epoch(self, epoch: int) -> None:
        """Let the next iteration be of an epoch; where it is anyway, its first step stays what a
        state said.
        """
        if self.begins[0] != epoch:
            self.begins = epoch, 0
        self.choose(*self.begins)

    def begin(self) -> tuple[int, int, int]:
        """Begin an iteration: (epoch, first step, turn, to be handed to `reached`)."""
        epoch, first = self.begins
        self.choose(epoch, first)
        self.begins = epoch + 1, 0
        return epoch, first, self._turn

    def reached(self, turn: int, epoch: int, step: int, steps: int) -> None:
        """Note that the iteration of `turn` has handed out the first `step` of `steps` steps of its
        epoch.
        """
        if turn == self._turn:
            self.epoch, self.step = (epoch, step) if step < steps else (epoch + 1, 0)


def checked_epoch(epoch: Any) -> int:
    """`epoch`, a whole number in range.

    Raises
    ------
    BadInput
        It is none.
    """
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch < MOST_EPOCHS:
        raise BadInput(
            f"epoch: expected a whole number from 0, below {MOST_EPOCHS}, found {epoch!r}"
        )
    return epoch


def checked_place(state: Any, own: Mapping[str, Any], steps: int) -> tuple[int, int]:
    """(epoch, step) of a loader's state, for a loader whose own state is `own` and whose epochs
    have `steps` steps.

    After the last step of an epoch stands the first of the next.

    Raises
    ------
    Conflict
        The state is of another store, order, split, seed, per_step, world_size or format, or its
        place is none.
    """
    if not isinstance(state, Mapping):
        raise Conflict(
            f"loader state: expected what state_dict() returned, found {type(state).__name__}",
            fix=ANEW,
        )
    for name in ("format", "store_key", "order_key", "split", "seed", "per_step", "world_size"):
        found = state.get(name)
        if type(found) is not type(own[name]) or found != own[name]:
            raise Conflict(
                f"loader state: its {name} is {found!r}, but {own[name]!r} here",
                fix="resume with the data and options it was saved with, or start an epoch anew: "
                "set_epoch(E)",
            )
    for name, last in (("epoch", MOST_EPOCHS - 1), ("step", steps)):
        found = state.get(name)
        if type(found) is not int or not 0 <= found <= last:
            raise Conflict(
                f"loader state: expected {name} to be an integer from 0 to {last}, found {found!r}",
                fix=ANEW,
            )
    epoch, step = state["epoch"], state["step"]
    return (epoch + 1, 0) if step == steps and steps else (epoch, step)
