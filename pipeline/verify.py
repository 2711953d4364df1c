"""Every altered, missing or unexpected byte of a committed artifact is found and named.

API: `verify_artifact(store, stage, key)` and `verify_store(store)`, each -> list of `Finding` (empty: sound).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import fs
from pipeline.digests import file_digest
from pipeline.errors import BadInput, Corrupt
from pipeline.manifest import MANIFEST, check_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.store import Store

__all__ = ["Finding", "verify_artifact", "verify_store"]


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one file. `kind`: missing, size, digest, unexpected, manifest or newer_format."""

    stage: str
    key: str
    file: str
    kind: str
    message: str


def verify_artifact(store: Store, stage: str, key: str) -> list[Finding]:
    """Read every byte of a committed artifact and compare it with its manifest.

    Findings of kind newer_format say that this stockpot cannot judge the artifact, all others that it is damaged.
    """
    folder = store.folder(stage, key)

    def finding(file: str, kind: str, message: str) -> Finding:
        return Finding(stage, key, str(folder / file), kind, message)

    try:
        data = fs.read(folder / MANIFEST)
    except FileNotFoundError:
        return [finding(MANIFEST, "missing", "no manifest: the artifact is not committed")]
    try:
        manifest = check_manifest(data, folder / MANIFEST, stage, key)
    except BadInput as error:
        return [finding(MANIFEST, "newer_format", str(error))]
    except Corrupt as error:
        return [finding(MANIFEST, "manifest", str(error))]
    found = []
    for name, file in sorted(manifest["files"].items()):
        path = folder / name
        try:
            size = path.lstat().st_size
            digest = file_digest(path) if size == file["size"] and path.is_file() else ""
        except (FileNotFoundError, NotADirectoryError):
            found.append(finding(name, "missing", f"missing; expected {file['size']} bytes"))
            continue
        if size != file["size"]:
            found.append(finding(name, "size", f"expected {file['size']} bytes, found {size}"))
        elif digest != file["digest"]:
            found.append(
                finding(name, "digest", f"expected digest {file['digest']}, found {digest or 'no plain file'}")
            )
    present = {
        Path(root, leaf).relative_to(folder).as_posix() for root, _, leaves in os.walk(folder) for leaf in leaves
    }
    strangers = sorted(present - manifest["files"].keys() - {MANIFEST})
    return found + [finding(name, "unexpected", "not listed in the manifest") for name in strangers]


def verify_store(
    store: Store,
    artifacts: Sequence[tuple[str, str]] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Finding]:
    """Verify these artifacts, or all of the store; `progress(done, total, text)` is called after each."""
    chosen = store.artifacts() if artifacts is None else list(artifacts)
    found: list[Finding] = []
    for done, (stage, key) in enumerate(chosen, 1):
        found += verify_artifact(store, stage, key)
        if progress is not None:
            progress(done, len(chosen), f"{stage}/{key}")
    return found
