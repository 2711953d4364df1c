"""A stored file that changed since it was last looked at is read in full before it is trusted
again.

Sizes are checked whenever an artifact is opened, and checksums whenever it is read. In between
stands this: a file edited in place (its inode or one of its times moved) makes the next run verify
the whole artifact, so that even a run that would read nothing of it finds the damage.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from stockpot.errors import Corrupt, CorruptArtifact
from stockpot.stages.replace import replacing
from stockpot.store.digests import bytes_digest, fingerprint
from stockpot.store.keys import canonical
from stockpot.store.manifest import seal, unseal

if TYPE_CHECKING:
    from pathlib import Path

    from stockpot.store.reader import ArtifactReader
    from stockpot.store.store import Store

__all__ = ["Seen"]

_log = logging.getLogger("stockpot")

_FORMAT = 2  # 1 knew no change times and was not sealed


class Seen:
    """Fingerprints (sizes, times, inodes) of artifacts this machine has looked at, in one small
    JSON file.

    Parameters
    ----------
    path : the cache file; None keeps nothing. A damaged one is reported; like a lost one it only
        means that changes made meanwhile are found later, when they are read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries = self._load()
        self._changed = False

    def check(self, store: Store, reader: ArtifactReader) -> None:
        """Verify the artifact in full where one of its files changed since the last look.

        Raises
        ------
        CorruptArtifact
            Naming the first file that does not match.
        """
        name = f"{os.path.realpath(store.root)}:{reader.stage}/{reader.key}"
        found = _fingerprint(reader)
        if self._entries.get(name) == found:
            return
        if name in self._entries:
            from stockpot.store.verify import verify_artifact

            if findings := verify_artifact(store, reader.stage, reader.key):
                first = findings[0]
                raise CorruptArtifact(
                    f"{first.file}: {first.message}",
                    fix="run the same command again: it is set aside and built anew",
                    stage=reader.stage,
                    key=reader.key,
                )
        self._entries[name] = found
        self._changed = True

    def save(self) -> None:
        """Keep the fingerprints for the next process; where they cannot be written, only this check
        is lost.
        """
        if self._path is None or not self._changed:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path, synced=False) as partial:
                partial.write_bytes(seal({"format": _FORMAT, "artifacts": self._entries}))
        self._changed = False

    def _load(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            data = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            _log.warning("%s cannot be read (%s): it is begun anew", self._path, error)
            return {}
        if data.startswith(b'{"artifacts"'):
            return {}  # of an early version, which wrote no check: begun anew
        try:
            found = unseal(data, self._path)
        except Corrupt as error:
            _log.warning("%s; it is begun anew", error.message)
            return {}
        entries = found.get("artifacts")
        return dict(entries) if found.get("format") == _FORMAT and isinstance(entries, dict) else {}


def _fingerprint(reader: ArtifactReader) -> str:
    stats = [[name, *fingerprint(reader.root / name)] for name in reader.names()]
    return bytes_digest(canonical(["stockpot-seen", stats]))
