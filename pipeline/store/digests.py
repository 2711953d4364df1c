"""A digest names content and nothing else; the stat cache only ever skips reading a file that
cannot have changed.

API: `file_digest(path)`, `payload_digest(files)`, and `StatCache(path).digest(file)` for source
files.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from stockpot.errors import BadInput
from stockpot.stages.replace import replacing
from stockpot.store.keys import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stockpot.stages.ingest.source import Source

__all__ = [
    "Fingerprint",
    "StatCache",
    "Verified",
    "bytes_digest",
    "file_digest",
    "fingerprint",
    "payload_digest",
    "source_digest",
]

Fingerprint = tuple[int, int, int, int]

_log = logging.getLogger("stockpot")

MMAP_BYTES = 1 << 20
# A file changed this shortly before it was hashed may change again within the same time stamp.
SETTLED_NS = 2_000_000_000
CACHE_FORMAT = 2  # 1 knew no change times: it is not read


def bytes_digest(data: Any) -> str:
    """blake3 of bytes, 32 hex characters."""
    return blake3(data).hexdigest(length=16)


def file_digest(path: Path | str) -> str:
    """blake3 of a file's content, 32 hex characters. O(size), constant memory."""
    hasher = blake3()
    if Path(path).stat().st_size >= MMAP_BYTES:
        hasher.update_mmap(path)
    else:
        with open(path, "rb") as file:
            hasher.update(file.read())
    return hasher.hexdigest(length=16)


def payload_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Digest of an artifact: of the sorted (relative path, size, file digest) of its payload."""
    entries = [[path, files[path]["size"], files[path]["digest"]] for path in sorted(files)]
    return bytes_digest(canonical(["stockpot-payload", entries]))


def source_digest(source: Source, digest: Callable[[str], str]) -> str:
    """Digest of a data set outside the store: of its one file, or of its kind, name and sorted
    (name, size, digest).

    Parameters
    ----------
    digest : digest of the content of the file at a path.
    """
    if source.single:
        (path,) = source.files.values()
        return digest(path)
    entries = []
    for name, path in sorted(source.files.items()):
        found = digest(path)  # first: it says what is wrong with a file that is gone
        entries.append([name, Path(path).stat().st_size, found])
    return bytes_digest(canonical(["stockpot-source", source.kind, source.name, entries]))


def _settled(path: Path) -> tuple[str, Fingerprint]:
    try:
        first = fingerprint(path)
        digest = file_digest(path)
        last = fingerprint(path)
    except OSError as error:
        raise BadInput(
            f"source {path}: cannot read it: {error.strerror or error}",
            fix="correct dataset.source in the recipe",
        ) from error
    if first != last:
        raise BadInput(
            f"source {path}: it changed while it was read",
            fix="let its writer finish, then run again",
        )
    return digest, last


def fingerprint(path: Path) -> Fingerprint:
    """Size, time of the last write, time of the last change of anything, inode: what moves when a
    file is rewritten.

    Unlike the time of the last write, the change time cannot be set back by `touch` or `os.utime`.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _is_entry(entry: Any) -> bool:
    """Whether this is [*fingerprint, digest, time of hashing]."""
    return isinstance(entry, list) and [type(item) for item in entry] == [
        int,
        int,
        int,
        int,
        str,
        int,
    ]


class Verified:
    """Files whose content this process has checked, each once; a file that changed since counts as
    new.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Fingerprint] = {}

    def seen(self, path: Path) -> bool:
        """Whether this very file was checked before."""
        return self._seen.get(str(path)) == fingerprint(path)

    def add(self, path: Path) -> None:
        """Remember that it was checked."""
        self._seen[str(path)] = fingerprint(path)


class StatCache:
    """Digests of source files by path and `fingerprint`, kept in one JSON file that processes may
    share.

    Parameters
    ----------
    path : the cache file, usually `runs/stat-cache.json`. A damaged one is reported and ignored;
        one that cannot be written is reported and only costs time. None keeps the digests in this
        process.
    """

    def __init__(self, path: Path | str | None) -> None:
        self.path = None if path is None else Path(path)
        self._here: dict[str, list[Any]] = {}
        self._lock = threading.Lock()

    def digest(self, path: Path | str) -> str:
        """Digest of a file, read again only where its fingerprint differs from last time, or was
        too fresh to tell.

        Raises
        ------
        BadInput
            The file is missing, unreadable, or changed while it was read.
        """
        name = os.path.realpath(path)
        with self._lock:
            try:
                found = fingerprint(Path(name))
            except OSError as error:
                raise BadInput(
                    f"source {path}: cannot read it: {error.strerror or error}",
                    fix="correct dataset.source in the recipe",
                ) from error
            entry = self._load().get(name)
            if (
                entry is not None
                and entry[:4] == list(found)
                and entry[5] - max(found[1:3]) > SETTLED_NS
            ):
                return str(entry[4])
            started_ns = time.time_ns()
            digest, stat = _settled(Path(name))
            self._save(name, [*stat, digest, started_ns])
            return digest

    def _load(self) -> dict[str, list[Any]]:
        if self.path is None:
            return self._here
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            _log.warning(
                "stat cache %s cannot be read (%s): source files are hashed again", self.path, error
            )
            return {}
        try:
            found = json.loads(text)
            entries = found["files"]
            if found["format"] < CACHE_FORMAT:
                return {}
            if found["format"] != CACHE_FORMAT or found["check"] != bytes_digest(
                canonical(entries)
            ):
                raise ValueError("its check does not match")
            if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
                raise ValueError("its entries are none")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning(
                "stat cache %s is damaged (%s): source files are hashed again", self.path, error
            )
            return {}
        return dict(entries)

    def _save(self, name: str, entry: list[Any]) -> None:
        if self.path is None:
            self._here[name] = entry
            return
        # Another process's entry written in between is lost, which costs one more hash and nothing
        # else.
        entries = {**self._load(), name: entry}
        data = {"format": CACHE_FORMAT, "check": bytes_digest(canonical(entries)), "files": entries}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, synced=False) as partial:
                partial.write_text(json.dumps(data, indent=0, sort_keys=True))
        except OSError as error:
            _log.warning("stat cache %s cannot be written (%s)", self.path, error)
