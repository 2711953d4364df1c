"""A whole run in this process, one task after the other: what tests of finished runs need, without
a cluster."""

from pathlib import Path

from stockpot.execution.task import FINISH, Task, execute, open_inputs
from stockpot.planning.plan import BUILD, Planner
from stockpot.planning.recipe import load
from stockpot.planning.registry import STAGES
from stockpot.report.run_outputs import built_of, write_outputs
from stockpot.stages.stage import Shard
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
from stockpot.store.keys import plain
from stockpot.store.store import Store


def run_here(recipe, runs, targets=(), *, threads=1):
    """Build everything of a recipe into `runs/store` and write the run's folder.

    With `targets`, only these stages and what they need: no folder, but a reader of each by node
    id.
    """
    runs = Path(runs)
    runs.mkdir(parents=True, exist_ok=True)
    store = Store(runs / "store")
    planner = Planner(
        load(recipe), store, StatCache(runs / "stat-cache.json"), Seen(runs / "seen.json")
    )
    while ready := [p for p in planner.plan(targets) if p.state == BUILD]:
        for p in ready:
            stage = STAGES[p.node.stage]
            shards = stage.shards(p.params, open_inputs(store, p.inputs))
            names = tuple(shard.name for shard in shards)
            for shard in [*shards, Shard(FINISH)]:
                execute(
                    Task(
                        str(store.root),
                        p.node.id,
                        stage.name,
                        p.key,
                        plain(p.params),
                        p.inputs,
                        shard,
                        names,
                        stage.exact,
                        threads,
                    )
                )
    if targets:
        return {p.node.id: store.open(p.node.stage, p.key) for p in planner.plan(targets)}
    write_outputs(planner.recipe, store, runs, built_of(planner.plan(), ()))
    return store


def quarantines(store):
    """Everything set aside, sorted by name."""
    return sorted(store.quarantined.iterdir()) if store.quarantined.is_dir() else []
