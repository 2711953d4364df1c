"""What a user means by RECIPE, ARTIFACT, --split and --record is one committed artifact, or the
error says the mend.

A recipe is planned like any run; a folder is a run's or an artifact's. Naming an artifact means all
of it, a record is meant where `--split` or `--record` is given, and by a recipe or run alone:
record 0 of split train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.command import command
from stockpot.locate import artifact_of
from stockpot.planning import dag
from stockpot.stages.errors import BadInput, Corrupt

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from stockpot.planning.plan import Planner
    from stockpot.store.reader import ArtifactReader

__all__ = ["Target", "in_folder", "in_recipe"]

PACK = "pack"


@dataclass(frozen=True)
class Target:
    """One committed artifact.

    Attributes
    ----------
    name : "pack:train" as a recipe calls it, "pack/KEY" by folder.
    record : index of the record to show; None shows the whole artifact.
    projected_bytes : memory of one task as planned; None where no recipe was given.
    judged : of a codebook, facts of the judge that chose its codec; None where none did.
    """

    name: str
    reader: ArtifactReader
    record: int | None = None
    projected_bytes: int | None = None
    judged: Mapping[str, Any] | None = None


def _named(args: argparse.Namespace) -> tuple[str, int | None]:
    """Node id and record that are asked for.

    Raises
    ------
    BadInput
        An artifact and another split, or a record of an artifact that has none.
    """
    name, split, record = args.artifact, args.split, args.record
    if name is None:
        return f"{PACK}:{split or 'train'}", record or 0
    if split is not None and name not in (PACK, f"{PACK}:{split}"):
        raise BadInput(
            f"inspect: {name} is not of split {split}",
            fix=command(args, "inspect", f"{PACK}:{split}"),
        )
    if name == PACK and split is not None:
        return f"{PACK}:{split}", record
    if record is not None and not name.startswith(f"{PACK}:"):
        raise BadInput(f"inspect: {name} has no records", fix=command(args, "inspect", name))
    return name, record


def in_recipe(planner: Planner, args: argparse.Namespace) -> Target:
    """The artifact of a recipe.

    Raises
    ------
    BadInput
        The recipe has no such artifact, or several of that name, or it is not built.
    Corrupt
        What is there is damaged.
    """
    name, record = _named(args)
    ids = [node.id for node in planner.nodes]
    if name.startswith(f"{PACK}:") and name not in ids:
        packed = [i for i in ids if i.startswith(f"{PACK}:")]
        splits = ", ".join(i.partition(":")[2] for i in packed)
        raise BadInput(
            f"inspect: split {name.partition(':')[2]}: expected one of {splits}",
            fix=command(args, "inspect", packed[0]),
        )
    found = dag.select(planner.nodes, [name])
    if len(found) > 1:
        raise BadInput(
            f"inspect: {name} has {len(found)} artifacts: {', '.join(found)}",
            fix=command(args, "inspect", found[0]),
        )
    plans = {p.node.id: p for p in planner.plan(found)}
    planned = plans.get(found[0])
    if planned is None:
        raise BadInput(
            f"inspect: {found[0]}: this run needs none: features are kept without loss",
            fix=command(args, "inspect", "quantize"),
        )
    if planned.damaged is not None:
        raise Corrupt(f"{found[0]}: damaged: {planned.damaged}", fix=command(args, "run", found[0]))
    if not planned.cached:
        raise BadInput(
            f"{found[0]}: not built in {planner.store.root}", fix=command(args, "run", found[0])
        )
    reader = planner.store.open(planned.node.stage, str(planned.key))
    judged = plans["judge"].facts if found[0] == "codebook" and "judge" in plans else None
    return Target(
        found[0], reader, record, planned.cost.peak if planned.cost is not None else None, judged
    )


def in_folder(folder: Path, args: argparse.Namespace) -> Target:
    """The artifact in a folder `STORE/objects/STAGE/KEY`, or the one of the run in `folder`.

    Raises
    ------
    BadInput
        The folder is neither, or does not hold what is asked for.
    """
    if (folder / "run.json").exists():
        name, record = _named(args)
        return Target(name, artifact_of(folder, name), record)
    if not (folder / "manifest.json").exists():
        raise BadInput(
            f"inspect: {folder}: expected a recipe, the folder of a run, or of an artifact with "
            f"manifest.json",
            fix="stockpot inspect runs/NAME, or STORE/objects/STAGE/KEY",
        )
    from stockpot.store.store import Store

    folder = folder.absolute()
    stage, key = folder.parent.name, folder.name
    reader = Store(folder.parent.parent.parent).open(stage, key)
    split = reader.facts.get("split")
    if args.artifact not in (None, stage, f"{stage}:{split}") or args.split not in (None, split):
        asked = args.artifact or f"split {args.split}"
        raise BadInput(
            f"inspect: {folder} holds {stage}{f' of split {split}' if split else ''}, not {asked}",
            fix=command(args, "inspect"),
        )
    if args.record is not None and stage != PACK:
        raise BadInput(f"inspect: {folder}: {stage} has no records", fix=command(args, "inspect"))
    record = 0 if args.record is None and args.split is not None else args.record
    return Target(f"{stage}/{key}", reader, record)
