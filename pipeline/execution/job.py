"""A node that is being built: its tasks, what is left of them, and how it fails."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockpot.errors import StockpotError

if TYPE_CHECKING:
    from stockpot.execution.task import Task
    from stockpot.planning.plan import Planned

__all__ = ["Job", "RunError", "Tag"]


class RunError(StockpotError):
    """A stage raised an unexpected error; `trace` is its traceback."""

    kind = "failed"

    def __init__(self, message: str, *, fix: str | None = None, trace: str = "") -> None:
        super().__init__(message, fix=fix)
        self.trace = trace


@dataclass
class Job:
    """A node being built: its tasks, and what is left of them."""

    planned: Planned
    tasks: dict[str, Task]
    queue: list[str]
    finished: set[str] = field(default_factory=set)
    flying: set[str] = field(default_factory=set)
    lost: dict[str, int] = field(default_factory=dict)
    before: int = 0
    """Shards found published when the node was begun."""
    ran: list[tuple[float, float]] = field(default_factory=list)
    """When its tasks ran, by this process's clock."""

    @property
    def seconds(self) -> float:
        """Seconds in which at least one of its tasks ran: waiting for a worker is in none of
        them.
        """
        total, until = 0.0, -math.inf
        for first, last in sorted(self.ran):
            total += max(0.0, last - max(first, until))
            until = max(until, last)
        return total


@dataclass(frozen=True)
class Tag:
    """What an outcome belongs to; a job begun again has another serial."""

    node: str
    shard: str
    serial: int
