"""What a path means to a reader: a run, a store or an artifact; where it is none of them, the error says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.run_folder import read_run
from stages.errors import BadInput, Conflict
from stages.places import local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.reader import ArtifactReader
    from stages.stage import Reader

__all__ = ["Opened", "artifact_of", "opened"]

BUILD = "stockpot run RECIPE builds it"


@dataclass(frozen=True)
class Opened:
    """A pack artifact; of a run also the recipe's tables, what sizes were measured, order and load plan of train."""

    pack: Reader
    order: Reader | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    loads: Reader | None = None
    sizing: Reader | None = None


def _artifact(run: Mapping[str, Any], folder: Path, name: str) -> ArtifactReader:
    from pipeline.store import Store

    entry = run["artifacts"].get(name)
    if entry is None:
        there = ", ".join(sorted(run["artifacts"])) or "nothing"
        raise BadInput(f"{folder / 'run.json'}: no artifact {name}; it has {there}", fix=BUILD)
    return Store(run["store"]).open(entry["stage"], entry["key"])


def artifact_of(where: str | Path, name: str) -> ArtifactReader:
    """Artifact `name` ("soup", "pack:train", ...) of the run in folder `where`."""
    folder = local(where, "run")
    if not (folder / "run.json").exists():
        raise BadInput(f"{folder}: expected the folder of a run with run.json, found none", fix=BUILD)
    return _artifact(read_run(folder), folder, name)


def opened(where: str | Path | Reader, split: str) -> Opened:
    """The packed split at `where`: a run folder, a store, an artifact folder, or a reader.

    Raises
    ------
    BadInput
        There is none.
    Conflict
        The artifact at `where` is of another split.
    """
    if not isinstance(where, (str, Path)):
        return Opened(_of_split(where, split, "reader"))
    from pipeline.store import Store

    folder = local(where, "run")
    if (folder / "run.json").exists():
        run = read_run(folder)
        order, loads = (
            _artifact(run, folder, name) if split == "train" and name in run["artifacts"] else None
            for name in ("order", "loadplan")
        )
        sizing = _artifact(run, folder, "sizing") if "sizing" in run["artifacts"] else None
        return Opened(_artifact(run, folder, f"pack:{split}"), order, run.get("recipe", {}), loads, sizing)
    if (folder / "manifest.json").exists():
        folder = folder.absolute()
        if folder.parent.name != "pack":
            raise BadInput(f"{folder}: expected an artifact of stage pack, found one of {folder.parent.name}")
        reader = Store(folder.parent.parent.parent).open("pack", folder.name)
        return Opened(_of_split(reader, split, str(folder)))
    if (folder / "objects").is_dir():
        store = Store(folder)
        packs = [store.open(stage, key) for stage, key in store.artifacts() if stage == "pack"]
        found = [pack for pack in packs if pack.facts["split"] == split]
        if len(found) != 1:
            keys = ", ".join(pack.key for pack in found) or "none"
            raise BadInput(
                f"{folder}: expected one packed {split} split in this store, found {len(found)} ({keys})",
                fix="name a run folder or the artifact's own folder",
            )
        return Opened(found[0])
    raise BadInput(f"{folder}: expected a run folder, a store or a pack artifact, found none of them", fix=BUILD)


def _of_split(reader: Reader, split: str, where: str) -> Reader:
    found = reader.facts.get("split")
    if found != split:
        raise Conflict(f"{where}: expected split {split}, found {found}", fix=f"open it with split={found!r}")
    return reader
