"""An artifact is in the store whole, for ever and as its digest says, or it is not there.

API: `Store(root)` with `committed`, `open`, `artifacts`, `work_in_progress`, `quarantine`,
`retract`, `check_writable` and `clean_work`. Artifacts are built by
`stockpot.execution.task.execute`.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stockpot.command import verify_mends
from stockpot.errors import BadInput, Conflict, Corrupt, CorruptArtifact
from stockpot.stages.places import FORBIDDEN, forbidden, local
from stockpot.store import fs
from stockpot.store.attempt import Work
from stockpot.store.commit import remove_work
from stockpot.store.manifest import MANIFEST, check_manifest, unseal
from stockpot.store.reader import ArtifactReader, ShardReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Store"]

_STAGE = re.compile(r"[a-z][a-z0-9_]*")
_KEY = re.compile(r"[0-9a-f]{32}")
PROBE_BYTES = 1 << 16
SEEN_WITHIN_S = 10.0
LOOK_EVERY_S = 0.2
PROBE_OLD_S = 7 * 24 * 3600.0


class Store:
    """A folder of committed artifacts, work in progress and what was set aside.

    Parameters
    ----------
    root : the store's folder; created on first write.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = local(root, "store")
        self.quarantined = self.root / "quarantine"

    def folder(self, stage: str, key: str) -> Path:
        """Folder of an artifact: `objects/<stage>/<key>`."""
        if not _STAGE.fullmatch(stage) or not _KEY.fullmatch(key):
            raise BadInput(
                f"{stage}/{key} is not an artifact: expected STAGE/KEY, a key being 32 hex "
                f"characters"
            )
        return self.root / "objects" / stage / key

    def work(self, key: str) -> Work:
        """Work in progress on an artifact."""
        return Work(self.root / "work" / key)

    def committed(self, stage: str, key: str) -> bool:
        """Whether the artifact is committed: its manifest can be opened. Never a listing, never a
        stat.

        Raises
        ------
        BadInput
            Whether it is there cannot be told: this user may not read it.
        """
        return self._manifest(stage, key) is not None

    def await_committed(self, stage: str, key: str) -> bool:
        """Whether the artifact is committed, where another machine may have done it just now.

        A network file system may show a new name late: it is looked for again until `SEEN_WITHIN_S`
        have passed.
        """
        deadline = time.monotonic() + SEEN_WITHIN_S
        while not self.committed(stage, key):
            if time.monotonic() > deadline:
                return False
            with suppress(
                OSError
            ):  # opening the folder makes such a file system ask its server again
                list(self.folder(stage, key).iterdir())
            time.sleep(LOOK_EVERY_S)
        return True

    def _manifest(self, stage: str, key: str) -> bytes | None:
        try:
            return fs.read(self.folder(stage, key) / MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            return b""  # no manifest to whoever opens it
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            raise forbidden(self.folder(stage, key) / MANIFEST, error) from error

    def open(self, stage: str, key: str) -> StoredArtifact:
        """Open a committed artifact, checking its manifest and the size of every file.

        Raises
        ------
        BadInput
            It is not committed, this user may not read it, or a newer version of stockpot wrote it.
        Corrupt
            Its manifest is damaged, a file is missing or has another size, or a part of it is a
            link.
        """
        data = self._manifest(stage, key)
        if data is None:
            raise BadInput(
                f"store {self.root}: no artifact {stage}/{key}", fix="stockpot run RECIPE builds it"
            )
        folder = self.folder(stage, key)
        try:
            self.refuse_links(folder)
            reader = StoredArtifact(folder, check_manifest(data, folder / MANIFEST, stage, key))
        except Corrupt as error:
            raise CorruptArtifact(
                error.message,
                fix=verify_mends(self.root),
                stage=stage,
                key=key,
            ) from error
        reader.check_sizes()
        return reader

    def refuse_links(self, folder: Path) -> None:
        """Refuse the folder of an artifact that is a link, and one that lies outside of this store.

        Raises
        ------
        Corrupt
            The folder or its manifest is a link: nobody knows what else changes what it shows.
        BadInput
            A folder above it is a link out of the store.
        """
        for path in (folder, folder / MANIFEST):
            if path.is_symlink():
                raise Corrupt(
                    f"{path}: expected a part of the store, found a link to {path.readlink()}"
                )
        root = os.path.realpath(self.root)
        if os.path.commonpath([root, found := os.path.realpath(folder)]) != root:
            raise BadInput(
                f"{folder}: expected a folder below {root}, found a link to {found}",
                fix="name the store that holds it with --store DIR, or remove the link",
            )

    def artifacts(self) -> list[tuple[str, str]]:
        """(stage, key) of every committed artifact, sorted."""
        return [pair for pair in self.folders() if os.path.lexists(self.folder(*pair) / MANIFEST)]

    def folders(self) -> list[tuple[str, str]]:
        """(stage, key) of every folder that an artifact has or had, sorted; also without a
        manifest.

        Raises
        ------
        BadInput
            This user may not list a folder.
        """
        stages = (stage for stage in _names(self.root / "objects") if _STAGE.fullmatch(stage))
        pairs = ((stage, key) for stage in stages for key in _names(self.root / "objects" / stage))
        return sorted(pair for pair in pairs if _KEY.fullmatch(pair[1]))

    def published(self, key: str, shard: str) -> ShardReader | None:
        """Reader of a published shard of an artifact in progress; None where it is not published.

        Raises
        ------
        CorruptShard
            Its entry is damaged, or a file is missing or has another size.
        """
        work = self.work(key)
        entry = work.entry(shard)
        if entry is None:
            return None
        reader = ShardReader(work.payload(entry), entry, key=key, shard=shard)
        reader.check_sizes()
        return reader

    def work_in_progress(self, key: str) -> dict[str, Any]:
        """State of an artifact being built.

        Returns
        -------
        {"shards": names of the published shards, sorted, "progress": shard -> {done, total, text,
        time} as last reported}; both empty where nothing is in progress.
        """
        work = self.work(key)
        progress = {}
        with suppress(FileNotFoundError):
            for path in sorted((work.root / "progress").iterdir()):
                if path.name.startswith(".") or path.suffix != ".json":
                    continue
                with suppress(OSError, Corrupt, ValueError):  # a damaged one tells of no progress
                    progress[path.stem] = _progress(unseal(path.read_bytes(), path))
        return {"shards": work.published(), "progress": progress}

    def quarantine(self, stage: str, key: str, reason: str) -> Path | None:
        """Set a damaged artifact aside, in one rename, so that it is neither read nor in the way of
        a rebuild.

        Returns
        -------
        Where it is now; None where it is gone already.
        """
        return self._set_aside(
            self.folder(stage, key), f"{stage}-{key}", reason, self.work(key).claims / "artifact"
        )

    def retract(self, key: str, shard: str, reason: str) -> Path | None:
        """Set a damaged shard of an artifact in progress aside, and the finish that may have read
        it.
        """
        work = self.work(key)
        moved = None
        for name in dict.fromkeys(["_finish", shard]):
            claim = work.claims / "shards" / f"claim-{name}.json"
            moved = self._set_aside(work.entry_path(name), f"shard-{key}-{name}", reason, claim)
        return moved

    def set_work_aside(self, key: str, reason: str) -> Path | None:
        """Set all work on an artifact aside: published shards, attempts and checkpoints.

        Returns
        -------
        Where it is now; None where there is none.
        """
        work = self.work(key)
        if not work.root.is_dir():
            return None
        return self._set_aside(work.root, f"work-{key}", reason, work.claims / "artifact")

    def _set_aside(self, path: Path, name: str, reason: str, claim: Path) -> Path | None:
        target = self.quarantined / f"{name}-{fs.unique()}"
        with fs.disk_errors(self.root):
            fs.make_folders(target)
            fs.write_new(target / "reason.txt", f"{reason}\n".encode())
            fs.remove_tree(claim)
            try:
                fs.rename(path, target / path.name)
            except FileNotFoundError:
                fs.remove_tree(target)
                return None
            fs.fsync_folder(path.parent)
            fs.fsync_folder(target)
        return target

    def check_writable(self) -> None:
        """Write, sync and remove a small file, so that a full or read-only disk is known before
        work starts.

        Raises
        ------
        BadInput
            Naming the store and the mend.
        """
        probe = self.root / "work" / f".probe-{fs.unique()}"
        try:
            with fs.disk_errors(self.root):
                fs.make_folders(self.root / "objects")
                fs.make_folders(probe.parent)
                try:
                    fs.write_new(probe, bytes(PROBE_BYTES))
                finally:
                    with suppress(FileNotFoundError):
                        probe.unlink()
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.EEXIST}:
                raise
            raise BadInput(
                f"store {self.root}: not a folder", fix="choose another store with --store DIR"
            ) from error

    def clean_work(self) -> list[str]:
        """Remove work on artifacts that are committed, left where a driver was killed between
        commit and clean-up.

        Returns
        -------
        Keys whose work was removed, sorted.
        """
        done = {key for _, key in self.artifacts()}
        removed = []
        for folder in self._work_folders():
            if folder.name.startswith(".removed-") or _old_file(folder):
                fs.remove_tree(folder)
                with suppress(OSError):  # a plain file is no tree
                    folder.unlink()
            elif folder.name in done:
                remove_work(Work(folder))
                removed.append(folder.name)
        return sorted(removed)

    def _work_folders(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from list((self.root / "work").iterdir())


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        raise forbidden(folder, error) from error


def _progress(found: dict[str, Any]) -> dict[str, Any]:
    """The progress a shard reported; `ValueError` where this is none."""
    kinds = [type(found.get(name)) for name in ("done", "total", "text", "time")]
    if kinds != [int, int, str, float]:
        raise ValueError(kinds)
    return found


def _old_file(path: Path) -> bool:
    """Left by a driver that was killed; a run lasts no week."""
    with suppress(OSError):
        return (
            path.name.startswith((".probe-", ".ranks-"))
            and time.time() - path.stat().st_mtime > PROBE_OLD_S
        )
    return False


class StoredArtifact(ArtifactReader):
    """An artifact of a store, which finds those that it was made from."""

    @classmethod
    def at(cls, root: Path) -> StoredArtifact:
        """The committed artifact in a folder of a store, as another process opened it.

        Raises
        ------
        FileNotFoundError
            There is none.
        StockpotError
            As `Store.open`.
        """
        store, stage, key = Store(root.parents[2]), root.parent.name, root.name
        if not store.await_committed(stage, key):
            raise FileNotFoundError(root)
        return store.open(stage, key)

    def parent(self, role: str) -> StoredArtifact:
        """The artifact of the same store that this one was made from as `role`.

        Raises
        ------
        Conflict
            There is none, or it is not the one that was used.
        """
        entry = next((p for p in self.manifest["parents"] if p["role"] == role), None)
        if entry is None:
            raise Conflict(f"{self.root}: it was not made from an artifact of role {role}")
        found = Store(self.root.parents[2]).open(entry["stage"], entry["key"])
        if found.digest != entry["digest"]:
            raise Conflict(
                f"{found.root}: expected digest {entry['digest']}, which {self.stage}/{self.key} "
                f"was made from, "
                f"found {found.digest}",
                fix="run the recipe again",
            )
        return found
