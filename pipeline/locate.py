"""What a path means to a reader: a run, a store or an artifact; where it is none of them, the error
says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.places import local
from stockpot.store.run_folder import read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.stage import Reader
    from stockpot.store.reader import ArtifactReader

__all__ = ["Opened", "artifact_of", "opened"]

BUILD = "stockpot run RECIPE builds it"


@dataclass(frozen=True)
class Opened:
    """A pack artifact; of a run also the recipe's tables, what sizes were measured, order and load
    plan of train.
    """

    pack: Reader
    order: Reader | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    loads: Reader | None = None
    sizing: Reader | None = None


def _store_of(
    run: Mapping[str, Any], folder: Path, entry: Mapping[str, Any], store: str | Path | None
) -> Path:
    """Where the run's store is that holds an artifact: as asked, where it was, or where it is if
    both moved together.

    Raises
    ------
    BadInput
        There is none.
    """
    was = Path(run["store"])
    first = was if store is None else local(store, "store")
    if (first / "objects").is_dir():
        return first
    for place in _moved_with(folder.absolute(), was) if store is None else ():
        if (place / "objects" / entry["stage"] / entry["key"]).is_dir():
            return place
    raise BadInput(
        f"{folder / 'run.json'}: expected its store in {first}, found none there",
        fix="store=DIR says where it is now; stockpot run RECIPE --store DIR writes the run's "
        "folder anew",
    )


def _moved_with(folder: Path, was: Path) -> Iterator[Path]:
    """Folders beside a run's, its parents' and so on, that are called as its store was: the nearest
    first.
    """
    for parent in folder.parents:
        for parts in range(1, len(was.parts)):
            yield parent.joinpath(*was.parts[-parts:])


def _artifact(
    run: Mapping[str, Any],
    folder: Path,
    name: str,
    store: str | Path | None = None,
    fix: str = BUILD,
) -> ArtifactReader:
    from stockpot.store.store import Store

    entry = run["artifacts"].get(name)
    if entry is None:
        there = ", ".join(sorted(run["artifacts"])) or "nothing"
        raise BadInput(f"{folder / 'run.json'}: no artifact {name}; it has {there}", fix=fix)
    place = _store_of(run, folder, entry, store)
    found = Store(place).open(entry["stage"], entry["key"])
    if place != Path(run["store"]) and entry.get("digest", found.digest) != found.digest:
        raise Conflict(
            f"{found.root}: expected digest {entry['digest']}, which {folder / 'run.json'} names, "
            f"found "
            f"{found.digest}: another store than the run's",
            fix="store=DIR says where its store is now",
        )
    return found


def artifact_of(
    where: str | Path, name: str, store: str | Path | None = None, *, fix: str = BUILD
) -> ArtifactReader:
    """Artifact `name` ("soup", "pack:train", ...) of the run in folder `where`; `store` as of
    `opened`; `fix` says how a run gets one.
    """
    folder = local(where, "run")
    if not (folder / "run.json").exists():
        raise BadInput(
            f"{folder}: expected the folder of a run with run.json, found none", fix=BUILD
        )
    return _artifact(read_run(folder), folder, name, store, fix)


def opened(where: str | Path | Reader, split: str, store: str | Path | None = None) -> Opened:
    """The packed split at `where`: a run folder, a store, an artifact folder, or a reader.

    The store of a run is where it was, or as far from the run's folder as it was where both moved
    together; any other place is named by `store`.

    Raises
    ------
    BadInput
        There is none.
    Conflict
        The artifact at `where` is of another split.
    """
    if not isinstance(where, (str, Path)):
        return Opened(_of_split(where, split, "reader"))
    from stockpot.store.store import Store

    folder = local(where, "run")
    if (folder / "run.json").exists():
        run = read_run(folder)
        order, loads = (
            _artifact(run, folder, name, store)
            if split == "train" and name in run["artifacts"]
            else None
            for name in ("order", "loadplan")
        )
        sizing = _artifact(run, folder, "sizing", store) if "sizing" in run["artifacts"] else None
        pack = _artifact(run, folder, f"pack:{split}", store)
        return Opened(pack, order, run.get("recipe", {}), loads, sizing)
    if store is not None:
        raise BadInput(
            f"{folder}: expected the folder of a run where store={str(store)!r} is given, found "
            f"another"
        )
    if (folder / "manifest.json").exists():
        folder = folder.absolute()
        if folder.parent.name != "pack":
            raise BadInput(
                f"{folder}: expected an artifact of stage pack, found one of {folder.parent.name}"
            )
        reader = Store(folder.parent.parent.parent).open("pack", folder.name)
        return Opened(_of_split(reader, split, str(folder)))
    if (folder / "objects").is_dir():
        whole = Store(folder)
        packs = [whole.open(stage, key) for stage, key in whole.artifacts() if stage == "pack"]
        found = [pack for pack in packs if pack.facts["split"] == split]
        if len(found) != 1:
            keys = ", ".join(pack.key for pack in found) or "none"
            raise BadInput(
                f"{folder}: expected one packed {split} split in this store, found {len(found)} "
                f"({keys})",
                fix="name a run folder or the artifact's own folder",
            )
        return Opened(found[0])
    raise BadInput(
        f"{folder}: expected a run folder, a store or a pack artifact, found none of them",
        fix=BUILD,
    )


def _of_split(reader: Reader, split: str, where: str) -> Reader:
    found = reader.facts.get("split")
    if found != split:
        raise Conflict(
            f"{where}: expected split {split}, found {found}", fix=f"open it with split={found!r}"
        )
    return reader
