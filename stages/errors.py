"""Every error a user can cause is a `StockpotError`: one line saying what, where, expected, found
and the mend.
"""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "BadInput",
    "Conflict",
    "Corrupt",
    "Interrupted",
    "NonDeterminism",
    "OverBudget",
    "StockpotError",
    "sensible",
]


class StockpotError(Exception):
    """Root of the errors shown to users as one line.

    Parameters
    ----------
    message : str
        What is wrong and where; expected and found.
    fix : str, optional
        The command or edit that mends it, appended as "; fix: ...".
    """

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        self.message = message
        self.fix = fix
        super().__init__(message if fix is None else f"{message}; fix: {fix}")

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (_rebuild, (type(self), self.message, self.fix))


def _rebuild(cls: type[StockpotError], message: str, fix: str | None) -> StockpotError:
    return cls(message, fix=fix)


class BadInput(StockpotError, ValueError):
    """The recipe, the data set or an argument is wrong: the user mends it."""

    kind = "bad_input"
    exit_code = 2


class OverBudget(BadInput):
    """The projected memory exceeds the budget; refused before anything runs."""

    kind = "over_budget"


class Corrupt(StockpotError):
    """Stored bytes do not match their digest or checksum: quarantine and rebuild."""

    kind = "corrupt"


class NonDeterminism(StockpotError):
    """A second attempt at an exact shard gave other bytes."""

    kind = "non_determinism"


class Conflict(StockpotError):
    """What was opened does not belong together (another key, split or format)."""

    kind = "conflict"
    exit_code = 2


class Interrupted(StockpotError):
    """Ctrl-C or a termination signal."""

    kind = "interrupted"
    exit_code = 130


@contextmanager
def sensible(what: str, corrupt: Callable[[str], Corrupt] = Corrupt) -> Iterator[None]:
    """Read what was stored: where it makes no sense to what reads it, it is refused as damage,
    whatever its seal says.

    Parameters
    ----------
    what : is read, for the message. The traceback goes along as `trace`.
    corrupt : makes the error from its message.
    """
    try:
        yield
    except StockpotError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        found = corrupt(f"{what}: what is stored makes no sense: {type(error).__name__}: {error}")
        found.trace = traceback.format_exc()  # type: ignore[attr-defined]
        raise found from error
