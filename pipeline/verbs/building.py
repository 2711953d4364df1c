"""run, plan, status and fetch: what is built, would be, or is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stockpot.command import command, typed
from stockpot.stages.errors import BadInput
from stockpot.verbs.session import Session, said

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from stockpot.execution.progress import Display
    from stockpot.planning.plan import Planned, Planner

__all__ = ["fetch", "plan", "run", "status"]


def run(args: argparse.Namespace) -> int:
    from stockpot.execution import ranks

    rank, _ = ranks.place()
    if rank > 0:
        return ranks.served(rank, args.store)
    with ranks.serving(args.store):
        return _built(args)


def _built(args: argparse.Namespace) -> int:
    session = Session(args)
    from stockpot.errors import CorruptArtifact
    from stockpot.execution.progress import display
    from stockpot.execution.run import Runner
    from stockpot.report.run_outputs import built_of, check_writable, result_text, write_outputs

    check_writable(session.runs / session.recipe.name)
    show = display(sys.stdout, silent=args.json)
    fresh: set[str] = set()
    mended: set[str] = set()
    budget = session.budget()
    report = (
        session.runs / session.recipe.name / "dask-report.html"
        if args.dask_report or not budget.local
        else None
    )
    try:
        while True:
            runner = Runner(session.planner, session.store, budget, show, report=report)
            runner.run(args.stages)
            fresh |= runner.built
            built = built_of(_standing(session.planner, args.stages, show), fresh)
            try:
                summary = write_outputs(
                    session.recipe,
                    session.store,
                    session.runs,
                    built,
                    command(args, "run", *args.stages),
                )
            except CorruptArtifact as error:
                # Found only now, in a file that no stage reads (a history): mended like any other.
                if error.key in mended:
                    raise
                mended.add(error.key)
                show.say(f"{error.stage:<18} damaged: {error.message}; set aside and built anew")
                session.store.quarantine(error.stage, error.key, error.message)
                session.planner.force.clear()  # built already
            else:
                break
    finally:
        show.close()
        session.seen.save()
    said(args, summary, result_text(summary, built, session.runs / session.recipe.name))
    return 0


def _standing(planner: Planner, asked: Sequence[str], show: Display) -> list[Planned]:
    """What the run folder tells of: the whole recipe, or what was asked for where the rest cannot
    take the data set.
    """
    try:
        return planner.plan()
    except BadInput as error:
        if not asked:
            raise
        show.say(f"the report leaves out what was not asked for: {error.message}")
        return planner.plan(asked)


def plan(args: argparse.Namespace) -> int:
    from stockpot.planning.budget import refuse
    from stockpot.planning.status import plan_document, plan_text

    session = Session(args)
    planned, budget = session.planner.plan(args.stages), session.budget()
    session.planner.check_source(planned)
    session.seen.save()
    absent, left_out = session.planner.absent, session.planner.left_out
    if absent is not None:
        absent = BadInput(absent.message, fix=typed(args, str(absent.fix)))
    text = plan_text(planned, budget, absent) + (f"\n{left_out}" if left_out else "")
    said(args, {**plan_document(planned, budget, absent), "left_out": left_out or None}, text)
    refuse(budget, [(p.node.id, p.cost) for p in planned if p.cost is not None and not p.cached])
    return 0


def status(args: argparse.Namespace) -> int:
    from stockpot.planning.status import status_document, status_text

    session = Session(args)
    document = status_document(session.planner.plan(), session.store)
    said(args, document, status_text(document))
    return 0


def fetch(args: argparse.Namespace) -> int:
    from stockpot.execution.progress import display
    from stockpot.planning.recipe import load
    from stockpot.stages.ingest.fetch import fetch
    from stockpot.stages.ingest.source import describe

    text = str(load(args.recipe, args.set).values()["dataset.source"])
    absent = (source := describe(text)).absent
    if absent is not None:
        show = display(sys.stderr, silent=args.json)
        try:
            fetch(source, show.say)
        finally:
            show.close()
        source = describe(text)
        if source.absent is not None:
            raise source.absent
    document = {
        "source": text,
        "folder": source.root,
        "fetched": absent is not None,
        "bytes": source.bytes(),
    }
    how = "fetched" if absent is not None else "there already"
    where = f" in {source.root}" if source.files else ""
    said(args, document, f"{text}: {how}: {len(source.files)} files{where}")
    return 0
