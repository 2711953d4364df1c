"""Everything of a recipe is built in this process, one task after the other, without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.execution.task import FINISH, Task, execute, open_inputs
from stockpot.planning.plan import BUILD
from stockpot.planning.registry import STAGES
from stockpot.stages.stage import Shard
from stockpot.store.attempt import UNLIMITED_BYTES
from stockpot.store.keys import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.planning.plan import Planner
    from stockpot.store.store import Store

__all__ = ["build_here"]


def build_here(
    planner: Planner,
    store: Store,
    targets: Sequence[str] = (),
    *,
    threads: int = 1,
    memory_bytes: int = UNLIMITED_BYTES,
) -> None:
    """Build the targets and their ancestors, all nodes where none is named.

    For graphs so small that a cluster would take longer to start. No task is refused for its
    memory; `memory_bytes` is what each may take, where its stage can do with less.

    Raises
    ------
    StockpotError
        The first error of a stage.
    """
    while ready := [p for p in planner.plan(targets) if p.state == BUILD]:
        for p in ready:
            stage, inputs = STAGES[p.node.stage], p.inputs or {}
            shards = stage.shards(p.params, open_inputs(store, inputs))
            names = tuple(shard.name for shard in shards)
            for shard in [*shards, Shard(FINISH)]:
                execute(
                    Task(
                        str(store.root),
                        p.node.id,
                        stage.name,
                        str(p.key),
                        plain(p.params),
                        inputs,
                        shard,
                        names,
                        stage.exact,
                        threads,
                        memory_bytes,
                    )
                )
