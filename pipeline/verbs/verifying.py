"""verify: every stored byte against its digest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput
from stockpot.verbs.session import Session, said

if TYPE_CHECKING:
    import argparse

    from stockpot.store.store import Store

__all__ = ["verify"]


def verify(args: argparse.Namespace) -> int:
    from stockpot.execution.progress import display
    from stockpot.store.store import Store
    from stockpot.store.verify import NO_DAMAGE, verify_artifact, verify_run

    if args.recipe is None and not args.all:
        raise BadInput("verify: expected a recipe or --all", fix="stockpot verify --all")
    store = Store(args.store)
    if args.recipe is None:
        if not store.root.is_dir():
            raise BadInput(
                f"verify: {store.root}: no such store",
                fix="name a store that exists with --store DIR",
            )
        artifacts = store.artifacts()
        runs = sorted(path.parent for path in args.runs.glob("*/run.json"))
    else:
        session = Session(args)
        there = [
            (p.node.stage, str(p.key)) for p in session.planner.plan() if p.cached or p.damaged
        ]
        artifacts = store.artifacts() if args.all else list(dict.fromkeys(there))
        runs = [args.runs / session.recipe.name]
    show = display(sys.stderr, silent=args.json)
    missing = [found for folder in runs for found in verify_run(store, folder)]
    # A store is whole without what a run of long ago had; a recipe that is asked for is not.
    findings = list(missing) if args.recipe is not None else []
    for f in missing:
        show.say(f"{f.stage}/{f.key}: {f.file}: {f.message}")
    for stage, key in artifacts:
        found = verify_artifact(store, stage, key)
        findings += found
        for f in found:  # said first: setting it aside may fail
            show.say(f"{f.stage}/{f.key}: {f.file}: {f.message}")
        if not args.keep and any(f.kind not in NO_DAMAGE for f in found):
            show.say(f"{stage}/{key}: {_set_aside(store, stage, key, found[0].message)}")
    show.close()
    document = {
        "store": str(store.root),
        "artifacts": len(artifacts),
        "findings": [vars(f) for f in findings],
        "missing": [vars(f) for f in missing],
    }
    damaged = len({(f.stage, f.key) for f in findings} & set(artifacts))
    sound = f"{len(artifacts) - damaged} of {len(artifacts)} artifacts in {store.root} are sound"
    if lost := sum(f.kind == "absent" for f in missing):
        sound += f", {lost} more {'is' if lost == 1 else 'are'} missing"
    said(args, document, sound)
    return 0 if not findings else 2 if all(f.kind == "unreadable" for f in findings) else 1


def _set_aside(store: Store, stage: str, key: str, why: str) -> str:
    """Set a damaged artifact aside, and say what became of it."""
    try:
        moved = store.quarantine(stage, key, why)
    except (BadInput, OSError) as error:
        reason = error.message if isinstance(error, BadInput) else error.strerror or error
        return f"could not be set aside: {reason}"
    return "gone already" if moved is None else f"set aside as {moved}; the next run builds it anew"
