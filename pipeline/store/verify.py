"""Every altered, missing or unexpected byte of a committed artifact is found and named.

API: `verify_artifact(store, stage, key)`, `verify_store(store)` and `verify_run(store, folder)`,
each a list of `Finding` (empty: sound).
"""

from __future__ import annotations

import os
import stat as modes
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput, Corrupt
from stockpot.store import fs
from stockpot.store.digests import file_digest
from stockpot.store.manifest import MANIFEST, check_manifest
from stockpot.store.run_folder import read_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stockpot.store.store import Store

__all__ = ["NO_DAMAGE", "Finding", "verify_artifact", "verify_run", "verify_store"]

NO_DAMAGE = frozenset({"newer_format", "unreadable", "absent", "run"})
"""Kinds of findings after which there is nothing to set aside: no bytes of an artifact are known to
be wrong."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one file.

    `kind`: missing, size, digest, unexpected, link or manifest; newer_format and unreadable, where
    this stockpot or this user cannot judge it; absent, where a whole artifact of a run is missing;
    run, where its `run.json` is damaged.
    """

    stage: str
    key: str
    file: str
    kind: str
    message: str


def verify_artifact(store: Store, stage: str, key: str) -> list[Finding]:
    """Read every byte of a committed artifact and compare it with its manifest.

    Findings of a kind in `NO_DAMAGE` say that the artifact cannot be judged, all others that it is
    damaged.
    """
    folder = store.folder(stage, key)

    def finding(file: str, kind: str, message: str) -> Finding:
        return Finding(stage, key, str(folder / file), kind, message)

    try:
        store.refuse_links(folder)
    except BadInput as error:
        return [finding("", "unreadable", error.message)]
    except Corrupt as error:
        return [finding("", "link", error.message)]
    try:
        data = fs.read(folder / MANIFEST)
        manifest = check_manifest(data, folder / MANIFEST, stage, key)
    except FileNotFoundError:
        return [finding(MANIFEST, "missing", "no manifest: the artifact is not committed")]
    except (IsADirectoryError, NotADirectoryError) as error:
        return [
            finding(MANIFEST, "manifest", f"expected a plain file in a folder: {error.strerror}")
        ]
    except OSError as error:
        return [finding(MANIFEST, "unreadable", f"cannot be read: {error.strerror}")]
    except BadInput as error:
        return [finding(MANIFEST, "newer_format", str(error))]
    except Corrupt as error:
        return [finding(MANIFEST, "manifest", str(error))]
    found = []
    for name, file in sorted(manifest["files"].items()):
        if (wrong := _wrong(folder / name, file)) is not None:
            found.append(finding(name, *wrong))
    barred: list[OSError] = []
    present = set()
    for root, folders, leaves in os.walk(folder, onerror=barred.append):
        links = [name for name in folders if Path(root, name).is_symlink()]
        present |= {Path(root, name).relative_to(folder).as_posix() for name in (*leaves, *links)}
    found += [
        finding(name, "unexpected", "not listed in the manifest")
        for name in sorted(present - _known(manifest))
    ]
    return found + [
        finding(str(e.filename), "unreadable", f"cannot be listed: {e.strerror}") for e in barred
    ]


def _known(manifest: Mapping[str, Any]) -> set[str]:
    return {*manifest["files"], MANIFEST}


def _wrong(path: Path, file: Mapping[str, Any]) -> tuple[str, str] | None:
    """(kind, message) of what is wrong with one payload file."""
    try:
        found = path.lstat()
        if not modes.S_ISREG(found.st_mode):
            return "digest", f"expected digest {file['digest']}, found no plain file"
        if found.st_size != file["size"]:
            return "size", f"expected {file['size']} bytes, found {found.st_size}"
        digest = file_digest(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", f"missing; expected {file['size']} bytes"
    except OSError as error:
        return "unreadable", f"cannot be read: {error.strerror}"
    return (
        None
        if digest == file["digest"]
        else ("digest", f"expected digest {file['digest']}, found {digest}")
    )


def verify_run(store: Store, folder: Path) -> list[Finding]:
    """Look for every artifact that the run in `folder` opens by its `run.json`, where that names
    this store.

    Findings: the document is damaged or cannot be read, or an artifact is not in the store.
    """
    path = folder / "run.json"
    if not os.path.lexists(path):
        return []
    try:
        run = read_run(folder)
        if os.path.realpath(run["store"]) != os.path.realpath(store.root):
            return []
        wanted = [(entry["stage"], entry["key"], name) for name, entry in run["artifacts"].items()]
        absent = [
            (stage, key, name) for stage, key, name in wanted if not store.committed(stage, key)
        ]
    except (BadInput, Corrupt) as error:
        return [Finding("run", folder.name, str(path), "run", error.message)]
    return [
        Finding(
            stage,
            key,
            str(store.folder(stage, key)),
            "absent",
            f"missing: {name} of the run {folder}",
        )
        for stage, key, name in absent
    ]


def verify_store(
    store: Store,
    artifacts: Sequence[tuple[str, str]] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Finding]:
    """Verify these artifacts, or all of the store; `progress(done, total, text)` is called after
    each.
    """
    chosen = store.artifacts() if artifacts is None else list(artifacts)
    found: list[Finding] = []
    for done, (stage, key) in enumerate(chosen, 1):
        found += verify_artifact(store, stage, key)
        if progress is not None:
            progress(done, len(chosen), f"{stage}/{key}")
    return found
