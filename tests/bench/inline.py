"""A recipe built by this process alone, one task after the other: no worker processes that a
benchmark has to start."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stockpot.execution.progress import Silent
from stockpot.execution.run import Runner
from stockpot.execution.task import execute
from stockpot.planning.budget import Budget
from stockpot.planning.plan import Planner
from stockpot.planning.recipe import load
from stockpot.report.run_outputs import built_of, write_outputs
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
from stockpot.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]


class Here:
    """Workers that are none: a task runs when it is submitted."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._ended: list[Any] = []

    @property
    def busy(self) -> bool:
        return bool(self._ended)

    def refuse(self, projected: Any) -> None:
        pass

    def submit(self, tag: Any, cost: Any, task: Any) -> bool:
        value, error, trace = None, None, ""
        try:
            value = execute(replace(task, memory_bytes=min(cost.peak, self._memory_bytes)))
        except Exception as caught:
            error, trace = caught, traceback.format_exc()
        self._ended.append(
            SimpleNamespace(tag=tag, value=value, error=error, trace=trace, lost=False)
        )
        return True

    def wait(self, timeout_s: float) -> list[Any]:
        ended, self._ended = self._ended, []
        return ended

    def close(self, *, now: bool = False) -> None:
        pass


def run(
    recipe: str | Path,
    overrides: Sequence[str],
    store: str | Path,
    runs: str | Path,
    targets: Sequence[str] = (),
) -> dict[str, Any]:
    """Build `targets` (everything where none is named) with one thread and return the summary.

    Parameters
    ----------
    recipe : TOML file. overrides : "section.key=value" each.
    """
    chosen = load(Path(recipe), list(overrides))
    place, seen = Store(Path(store)), Seen(Path(runs) / "seen.json")
    planner = Planner(chosen, place, StatCache(Path(runs) / "stat-cache.json"), seen)
    budget = Budget(memory_bytes=16 << 30, cores=1)
    runner = Runner(planner, place, budget, Silent(), lambda _: Here(budget.memory_bytes))
    runner.run(targets)
    seen.save()
    return write_outputs(chosen, place, Path(runs), built_of(planner.plan(targets), runner.built))
