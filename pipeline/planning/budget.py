"""Nothing starts that is projected not to fit: memory, cores and how many tasks may run at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.planning.recipe import parse_bytes
from stockpot.stages.errors import OverBudget
from stockpot.stages.show.plain import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stockpot.planning.recipe_keys import Resources
    from stockpot.stages.stage import Cost

__all__ = ["WORKER_BYTES", "Budget", "granted", "machine_bytes", "measure", "refuse"]

WORKER_BYTES = 200_000_000
"""A worker before its first task (interpreter, numpy, Dask, pyarrow): what `Cost.peak` stands
on."""
AUTO_SHARE = 0.8
UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class Budget:
    """What this machine and the recipe allow.

    Attributes
    ----------
    memory_bytes : for all tasks together, workers included; on a cluster for a task and its worker.
    cores : cores this process may use.
    workers : asked for in the recipe; None where automatic.
    scheduler : "local", or the address of the cluster that runs the tasks.
    """

    memory_bytes: int
    cores: int
    workers: int | None = None
    scheduler: str = "local"

    @property
    def local(self) -> bool:
        return self.scheduler == "local"

    @property
    def bounded(self) -> bool:
        """Whether the recipe or this machine bounds the memory; else only the workers of the
        cluster do.
        """
        return self.memory_bytes < UNBOUNDED

    @property
    def task_bytes(self) -> int:
        """Most a single task may need above its worker."""
        return max(0, self.memory_bytes - WORKER_BYTES)


def granted(cost: Cost, free_bytes: int) -> int:
    """What a task may take of `free_bytes`: all it wants where that fits, never less than it
    needs.
    """
    return min(cost.peak, max(cost.needed, free_bytes))


def measure(resources: Resources) -> Budget:
    """Resolve `[resources]` on this machine."""
    import psutil

    memory = parse_bytes(resources.memory)
    if memory is None and resources.scheduler != "local":
        memory = UNBOUNDED  # each worker has a limit of its own
    elif memory is None:
        most, used = _cgroup()
        memory = int(AUTO_SHARE * min(psutil.virtual_memory().available, max(0, most - used)))
    workers = None if resources.workers == "auto" else int(resources.workers)
    return Budget(memory, len(os.sched_getaffinity(0)), workers, resources.scheduler)


def machine_bytes() -> int:
    """Memory of this machine or container."""
    import psutil

    return int(min(psutil.virtual_memory().total, _cgroup()[0]))


def _cgroup() -> tuple[int, int]:
    """Limit and use of this control group (containers); a limit no machine reaches where there is
    none.
    """
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            most = limit.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as now:
            used = int(now.read())
    except (OSError, ValueError):
        return UNBOUNDED, 0
    return (UNBOUNDED if most == "max" else int(most)), used


def refuse(budget: Budget, projected: Iterable[tuple[str, Cost]]) -> None:
    """Raise `OverBudget` naming every node whose task cannot fit, worst first.

    Parameters
    ----------
    projected : (node id, projection of one of its tasks).
    """
    over = sorted(
        ((node, cost) for node, cost in projected if cost.needed > budget.task_bytes),
        key=lambda o: -o[1].needed,
    )
    if not over:
        return
    listed = ", ".join(
        f"{node} {human_bytes(cost.needed + WORKER_BYTES)}" for node, cost in over[:5]
    )
    more = f" and {len(over) - 5} more" if len(over) > 5 else ""
    need = human_bytes(over[0][1].needed + WORKER_BYTES, up=True).replace(" ", "")
    mends = dict.fromkeys(
        cost.mend or "smaller records (batches.outputs, batches.top_k)" for _, cost in over
    )
    raise OverBudget(
        f"projected memory of a task exceeds resources.memory: {listed}{more}; "
        f"allowed {human_bytes(budget.memory_bytes)}",
        fix=f"--set resources.memory={need}, or {' and '.join(mends)}",
    )
