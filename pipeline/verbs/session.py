"""What most verbs need: the recipe, the store, and a planner with its caches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stockpot.stages.show.printable import printable, printable_json

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from stockpot.planning.budget import Budget
    from stockpot.planning.plan import Planner
    from stockpot.planning.recipe import Recipe
    from stockpot.store.store import Store

__all__ = ["Session", "said"]


class Session:
    """What most verbs need: the recipe, the store, and a planner with its caches."""

    def __init__(self, args: argparse.Namespace) -> None:
        from stockpot.execution import ranks
        from stockpot.planning import dag
        from stockpot.planning.plan import Planner
        from stockpot.planning.recipe import load
        from stockpot.store.digests import StatCache
        from stockpot.store.fingerprints import Seen
        from stockpot.store.store import Store

        self.args = args
        overrides = list(args.set)
        if getattr(args, "scheduler", None):
            overrides.append(f"resources.scheduler={json.dumps(args.scheduler)}")
        overrides += ranks.overrides(getattr(args, "ranks", None))
        self.recipe: Recipe = load(args.recipe, overrides)
        self.store: Store = Store(args.store)
        self.runs: Path = args.runs
        self.seen = Seen(args.runs / "seen.json")
        self.planner: Planner = Planner(
            self.recipe, self.store, StatCache(args.runs / "stat-cache.json"), self.seen
        )
        if forced := getattr(args, "force", []):
            self.planner.force |= set(dag.select(self.planner.nodes, forced))

    def budget(self) -> Budget:
        from stockpot.planning.budget import measure

        return measure(self.recipe.resources)


def said(args: argparse.Namespace, document: Any, text: str) -> None:
    found = (
        printable_json(json.dumps(document, indent=1, ensure_ascii=False))
        if args.json
        else printable(text)
    )
    print(found)
