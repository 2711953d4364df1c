"""A whole run in this process, one task after the other: what tests of finished runs need, without
a cluster."""

from pathlib import Path

from stockpot.execution.in_process import build_here
from stockpot.planning.plan import Planner
from stockpot.planning.recipe import load
from stockpot.report.run_outputs import built_of, write_outputs
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
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
    build_here(planner, store, targets, threads=threads)
    if targets:
        return {p.node.id: store.open(p.node.stage, p.key) for p in planner.plan(targets)}
    write_outputs(planner.recipe, store, runs, built_of(planner.plan(), ()))
    return store


def quarantines(store):
    """Everything set aside, sorted by name."""
    return sorted(store.quarantined.iterdir()) if store.quarantined.is_dir() else []
