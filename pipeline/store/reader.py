"""What a stage or trainer reads from a store was checked against its digest or checksum first, once
per process.

API: `ArtifactReader` (from `Store.open`), `ShardReader` (handed to `finish`), `SourceReader(source,
digest)`. All three implement `stockpot.stages.stage.Reader`.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stockpot.command import verify_mends
from stockpot.errors import BadInput, Conflict, Corrupt, CorruptArtifact, CorruptShard
from stockpot.stages.places import unread
from stockpot.store.arrays import METADATA, read_array
from stockpot.store.digests import StatCache, Verified, file_digest, source_digest
from stockpot.store.manifest import FACTS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.ingest.source import Source

__all__ = ["ArtifactReader", "PayloadReader", "ShardReader", "SourceReader"]

_verified = Verified()
_sources = StatCache(None)  # of this process: shards of one artifact read the same source


class PayloadReader:
    """Files of one folder with known sizes and digests.

    Parameters
    ----------
    root : folder of the files.
    files : relative path -> {size, digest, crc32c of array chunks}.
    """

    def __init__(
        self, root: Path, files: Mapping[str, Mapping[str, Any]], *, key: str, digest: str
    ) -> None:
        self.root = root
        self.key = key
        self.digest = digest
        self._files: dict[str, dict[str, Any]] = {name: dict(file) for name, file in files.items()}

    def corrupt(self, message: str) -> Corrupt:
        """Error to raise for damage in this payload; it says what to set aside."""
        return Corrupt(message)

    def check_sizes(self) -> None:
        """Check that every file is there with its size.

        Raises
        ------
        Corrupt
            Naming the first file that is missing, has another size, or is no plain file below the
            folder.
        BadInput
            This user may not look at it.
        """
        for folder in sorted(
            {part for name in self._files for part in PurePosixPath(name).parents}
        ):
            if not stat.S_ISDIR(self._look(self.root / folder, "a folder").st_mode):
                raise self.corrupt(
                    f"{self.root / folder}: expected a folder, found a link or a file"
                )
        for name, file in self._files.items():
            path = self.root / name
            found = self._look(path, f"{file['size']} bytes")
            if not stat.S_ISREG(found.st_mode):
                raise self.corrupt(
                    f"{path}: expected a plain file, found a link, a folder or a device"
                )
            if found.st_size != file["size"]:
                raise self.corrupt(f"{path}: expected {file['size']} bytes, found {found.st_size}")

    def _look(self, path: Path, expected: str) -> os.stat_result:
        """What stands at a path, links not followed."""
        try:
            return path.lstat()
        except OSError as error:
            raise self._unread(path, error, expected) from error

    def _unread(self, path: Path, error: OSError, expected: str = "a file") -> Exception:
        """The error for a file that could not be read: damage, but where only this user may not."""
        return unread(path, error, lambda _: self.corrupt(f"{path}: missing; expected {expected}"))

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts the stage returned, from the payload."""
        try:
            facts: dict[str, Any] = json.loads(self.path(FACTS).read_bytes())
            if not isinstance(facts, dict):
                raise TypeError(f"found {type(facts).__name__}")
        except (TypeError, ValueError, RecursionError) as error:
            raise self.corrupt(f"{self.root / FACTS}: expected facts as JSON: {error}") from error
        return facts

    def has(self, name: str) -> bool:
        """Whether the array or file `name` is in the payload."""
        return name in self._files or f"{name}/{METADATA}" in self._files

    def names(self) -> Sequence[str]:
        """Relative paths of all payload files, sorted."""
        return sorted(self._files)

    def array(self, name: str) -> NDArray[Any]:
        """Dense array `name`, read-only; see `stockpot.store.arrays.read_array`.

        Raises
        ------
        Conflict
            There is no such array.
        Corrupt
            A file of it is missing or altered.
        """
        if f"{name}/{METADATA}" not in self._files:
            arrays = sorted(
                file.removesuffix(f"/{METADATA}")
                for file in self._files
                if file.endswith(f"/{METADATA}")
            )
            raise Conflict(f"{self.root}: no array {name!r}; it has {', '.join(arrays) or 'none'}")
        try:
            return read_array(self.root, name, self._files, _verified)
        except Corrupt as error:
            raise self.corrupt(error.message) from error

    def path(self, name: str) -> Path:
        """Absolute path of payload file `name`, its digest checked on first use in the process.

        A mini-batch shard that has an index beside it is left to its reader, which checks every
        record's crc32c.

        Raises
        ------
        Conflict
            There is no such file.
        Corrupt
            It is missing or altered.
        """
        if name not in self._files:
            raise Conflict(
                f"{self.root}: no file {name!r}; it has {', '.join(self.names()) or 'none'}"
            )
        path = (self.root / name).absolute()
        indexed = (
            name.endswith(".arrow") and f"{name.removesuffix('.arrow')}.index.arrow" in self._files
        )
        try:
            if not indexed and not _verified.seen(path):
                if file_digest(path) != self._files[name]["digest"]:
                    raise self.corrupt(f"{path}: its content does not match its digest")
                _verified.add(path)
        except OSError as error:
            raise self._unread(path, error) from error
        return path


class ArtifactReader(PayloadReader):
    """One committed artifact; `manifest` is its whole manifest."""

    def __init__(self, root: Path, manifest: Mapping[str, Any]) -> None:
        super().__init__(root, manifest["files"], key=manifest["key"], digest=manifest["digest"])
        self.manifest = manifest
        self.stage: str = manifest["stage"]

    def corrupt(self, message: str) -> CorruptArtifact:
        return CorruptArtifact(
            f"{message} (artifact {self.stage}/{self.key})",
            fix=verify_mends(self.root.parents[2]),
            stage=self.stage,
            key=self.key,
        )


class ShardReader(PayloadReader):
    """The published files and facts of one shard of an artifact in progress."""

    def __init__(self, root: Path, entry: Mapping[str, Any], *, key: str, shard: str) -> None:
        super().__init__(root, entry["files"], key=key, digest=entry["digest"])
        self.shard = shard
        self._facts: Mapping[str, Any] = entry["facts"]

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def corrupt(self, message: str) -> CorruptShard:
        return CorruptShard(
            f"{message} (shard {self.shard} of {self.key})",
            fix="run the same command again: the shard is computed anew",
            key=self.key,
            shard=self.shard,
        )


class SourceReader:
    """A data set outside the store, read under the digest the plan found for it.

    `path` checks the digest on first use; `check()` checks it again, after the stage has read the
    data. A file whose size, time and inode have not moved since this process digested it is not
    read again.
    """

    def __init__(self, source: Source, digest: str) -> None:
        self.source = source
        self.key = self.digest = digest
        self._checked = False

    @property
    def facts(self) -> Mapping[str, Any]:
        """Kind, text as in the recipe, name, root folder, bytes, names that are left out."""
        source = self.source
        facts = {"kind": source.kind, "text": source.text, "name": source.name, "root": source.root}
        return {**facts, "bytes": source.bytes(), "left_out": list(source.left_out)}

    def has(self, name: str) -> bool:
        return name in self.source.files

    def names(self) -> Sequence[str]:
        return sorted(self.source.files)

    def array(self, name: str) -> NDArray[Any]:
        raise Conflict(f"source {self.source.text} has no array {name!r}: it is read by path")

    def path(self, name: str) -> Path:
        """Absolute path of a file of the source; a source that is one file calls it "source".

        Raises
        ------
        BadInput
            The source is missing or no longer what the plan saw.
        """
        if name not in self.source.files:
            known = ", ".join(self.names()) or "none"
            raise Conflict(f"source {self.source.text} has no file {name!r}, only {known}")
        if not self._checked:
            self.check()
            self._checked = True
        return Path(self.source.files[name])

    def check(self) -> None:
        """Raise `BadInput` where the content is no longer what the plan saw."""
        found = source_digest(self.source, _sources.digest)
        if found != self.digest:
            where = (
                next(iter(self.source.files.values())) if self.source.single else self.source.text
            )
            raise BadInput(
                f"source {where}: it changed since the plan was made: expected digest "
                f"{self.digest}, found {found}",
                fix="let its writer finish, then run the same command again",
            )
