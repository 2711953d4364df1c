"""An artifact appears whole, by one exclusive link of its manifest, last and after all it names is
durable.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.errors import Conflict, CorruptShard, NonDeterminism, StockpotError
from stockpot.store import fs
from stockpot.store.attempt import FINISH, Work
from stockpot.store.digests import file_digest
from stockpot.store.manifest import MANIFEST, build_manifest, seal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["commit", "entries_of", "remove_work"]

PRIVATE = "part-"
"""Shard files whose name starts so are for `finish` only."""


def entries_of(work: Work, shards: Sequence[str], stage: str) -> dict[str, dict[str, Any]]:
    """Entries of all these shards, in order.

    Raises
    ------
    StockpotError
        Some are not published; it lists every one of them.
    """
    found = {shard: work.entry(shard) for shard in shards}
    missing = [shard for shard, entry in found.items() if entry is None]
    if missing:
        raise StockpotError(
            f"stage {stage} ({work.key}): {len(missing)} of {len(found)} shards are missing: "
            f"{', '.join(missing)}",
            fix="run the same command again: it computes what is missing",
        )
    return {shard: entry for shard, entry in found.items() if entry is not None}


def commit(
    work: Work,
    target: Path,
    *,
    quarantine: Path,
    shards: Sequence[str],
    stage: str,
    exact: bool,
    version: int,
    params: Mapping[str, Any],
    parents: list[dict[str, str]],
) -> None:
    """Publish the artifact made of the published shards and their finish as folder `target`.

    Running it again, after a crash or beside another committer, ends with the same artifact.

    Raises
    ------
    StockpotError
        A shard is missing (all missing ones are named), or changed since `finish` read it.
    Conflict
        Two shards wrote the same file, or another commit of other bytes is under way.
    NonDeterminism
        An exact artifact is committed already, with other bytes.
    FileNotFoundError
        The work was removed meanwhile; then another driver has committed it, or a person deleted
        it.
    """
    entries = entries_of(work, [*shards, FINISH], stage)
    finish = entries[FINISH]
    if finish["uses"] != {shard: entries[shard]["digest"] for shard in shards}:
        raise CorruptShard(
            f"stage {stage} ({work.key}): shards changed since they were finished",
            fix="run the same command again",
            key=work.key,
            shard=FINISH,
        )
    files, sources = _payload(work, entries)
    manifest = build_manifest(
        stage=stage,
        version=version,
        key=work.key,
        params=params,
        parents=parents,
        files=files,
        facts=finish["facts"],
        shards=entries,
    )
    staging = work.root / f"commit-{fs.unique()}"
    fs.make_folders(staging)
    if not _place(sources, files, target, staging):
        if (target / MANIFEST).exists():
            if exact:
                raise NonDeterminism(
                    f"{target}: stage {stage} is exact, but this commit has other bytes than the "
                    f"committed artifact",
                    fix="stockpot verify --all, and check this machine's memory and library "
                    "versions",
                )
            return  # A recorded stage: the first commit is adopted by everyone.
        # Left by a commit of other bytes that never ended: without a manifest no reader has seen
        # it.
        fs.make_folders(quarantine)
        fs.rename(target, quarantine / f"{stage}-{work.key}-{fs.unique()}")
        if not _place(sources, files, target, staging):
            raise Conflict(
                f"{target}: another commit of stage {stage} with other bytes is under way",
                fix="let it end, then run the same command again",
            )
    fs.fsync_tree(target)
    ready = staging / MANIFEST
    fs.write_new(ready, seal(manifest))
    fs.publish(ready, target / MANIFEST, work.claims / "artifact")


def _payload(
    work: Work, entries: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Path]]:
    files: dict[str, dict[str, Any]] = {}
    sources: dict[str, Path] = {}
    owners: dict[str, str] = {}
    for shard, entry in entries.items():
        for name, file in entry["files"].items():
            if name.startswith(PRIVATE):
                continue
            if name in files:
                raise Conflict(
                    f"shards {owners[name]} and {shard} of {work.key} both wrote {name!r}"
                )
            files[name] = file
            sources[name] = work.payload(entry) / name
            owners[name] = shard
    return files, sources


def _place(
    sources: Mapping[str, Path], files: Mapping[str, Mapping[str, Any]], target: Path, staging: Path
) -> bool:
    """Put every payload file in place; False where `target` holds other bytes."""
    fs.make_folders(target)
    for folder in sorted({(target / name).parent for name in files}):
        fs.make_folders(folder)
    for name, source in sources.items():
        placed = target / name
        if fs.link_or_copy(source, placed, staging):
            continue
        same = (
            placed.stat().st_size == files[name]["size"]
            and file_digest(placed) == files[name]["digest"]
        )
        if not same:
            return False
    present = {
        Path(folder, leaf).relative_to(target).as_posix()
        for folder, _, leaves in os.walk(target)
        for leaf in leaves
    }
    return present - {MANIFEST} == files.keys()


def remove_work(work: Work) -> None:
    """Remove all work on an artifact that is committed; one rename first, so that nobody sees half
    of it.
    """
    gone = work.root.with_name(f".removed-{fs.unique()}")
    # The artifact is safe: what cannot be tidied now (a full or read-only disk) is, by the next
    # run.
    with suppress(OSError):
        fs.rename(work.root, gone)
        fs.remove_tree(gone)
