"""report, inspect and recipe: what is stored, readable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.command import command
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.verbs.session import Session, said

if TYPE_CHECKING:
    import argparse

__all__ = ["inspect", "recipe", "report"]


def report(args: argparse.Namespace) -> int:
    from stockpot.report.run_outputs import built_of, write_outputs

    session = Session(args)
    planned = session.planner.plan()
    for found in planned:
        if found.damaged is not None:  # a report without it would say that it was never built
            raise Corrupt(
                f"{found.node.id}: damaged: {found.damaged}",
                fix=f"stockpot verify --all --store {args.store} sets it aside, the next run "
                f"builds it anew",
            )
    built = built_of(planned, ())
    if not built:
        raise BadInput(
            f"report: nothing of {args.recipe} is built in {args.store}",
            fix=f"stockpot run {args.recipe}",
        )
    summary = write_outputs(
        session.recipe, session.store, session.runs, built, command(args, "run")
    )
    said(args, summary, f"written: {session.runs / session.recipe.name / 'report.html'}")
    return 0


def inspect(args: argparse.Namespace) -> int:
    from stockpot.inspection.inspect_artifact import artifact_document, artifact_text
    from stockpot.inspection.target import in_folder, in_recipe

    folder = Path(args.recipe)
    target = in_folder(folder, args) if folder.is_dir() else in_recipe(Session(args).planner, args)
    if target.record is None:
        document = artifact_document(target)
        said(args, document, "" if args.json else artifact_text(document))
        return 0
    from stockpot.inspection.inspect_record import record_document, record_text

    words = [] if args.artifact is None else [args.artifact]
    words += [] if args.split is None else ["--split", args.split]
    document = record_document(target, command(args, "inspect", *words))
    said(args, document, "" if args.json else record_text(document))
    return 0


def recipe(args: argparse.Namespace) -> int:
    from stockpot.planning.recipe import KEYS, defaults_text, load, to_toml

    if args.defaults:
        keys = {
            name: {"default": key.default, "expected": key.expected, "about": key.about}
            for name, key in KEYS.items()
        }
        said(args, keys, defaults_text().rstrip())
        return 0
    if args.recipe is None:
        raise BadInput(
            "recipe: expected a recipe file or --defaults", fix="stockpot recipe --defaults"
        )
    recipe = load(args.recipe, args.set)
    said(args, recipe.tables(), to_toml(recipe).rstrip())
    return 0
