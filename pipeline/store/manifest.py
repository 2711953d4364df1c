"""A store document (a manifest, a shard's entry) is read back exactly as written, or refused naming
the file.

Documents are JSON in one fixed layout with a `check` over all other fields, so a flipped bit
anywhere in one is an error, also in the fields that no digest covers.
"""

from __future__ import annotations

import json
import platform
import socket
import sys
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput, Corrupt
from stockpot.store.digests import bytes_digest, payload_digest
from stockpot.store.forms import manifest_fault
from stockpot.store.keys import FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "FACTS",
    "MANIFEST",
    "build_manifest",
    "check_manifest",
    "own_version",
    "seal",
    "software",
    "unseal",
]

MANIFEST = "manifest.json"
FACTS = "facts.json"
LIBRARIES = (
    "numpy",
    "scipy",
    "numba",
    "pyarrow",
    "torch",
    "torch_geometric",
    "pymetis",
    "safetensors",
)


def seal(document: Mapping[str, Any]) -> bytes:
    """Bytes of a document with its check."""
    return _layout({**document, "check": bytes_digest(_layout(document))})


def unseal(data: bytes, path: Path | str) -> dict[str, Any]:
    """Document from its bytes.

    Raises
    ------
    Corrupt
        It is not JSON, not in the fixed layout, or its check does not match.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: not a JSON document: {error}") from error
    if not isinstance(document, dict) or "check" not in document:
        raise Corrupt(f"{path}: expected a document with a check, found none")
    body = {name: value for name, value in document.items() if name != "check"}
    try:
        same = seal(body) == data
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: not a document of a store: {error}") from error
    if not same:
        raise Corrupt(f"{path}: its content does not match its check")
    return body


def _layout(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def build_manifest(
    *,
    stage: str,
    version: int,
    key: str,
    params: Mapping[str, Any],
    parents: list[dict[str, str]],
    files: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    shards: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Manifest of an artifact from its payload files and the documents of the shards that made it.

    Only `files` enter the digest. `seconds` and `bytes_written` are sums over the shards,
    `peak_bytes` their maximum.
    """
    entries = list(shards.values())
    return {
        "format": FORMAT_VERSION,
        "stage": stage,
        "version": version,
        "key": key,
        "digest": payload_digest(files),
        "params": dict(params),
        "parents": parents,
        "files": {name: dict(files[name]) for name in sorted(files)},
        "facts": dict(facts),
        "notes": {name: entry["notes"] for name, entry in shards.items() if entry["notes"]},
        "started": min(entry["started"] for entry in entries),
        "seconds": sum(entry["seconds"] for entry in entries),
        "peak_bytes": max(entry["peak_bytes"] for entry in entries),
        "bytes_written": sum(file["size"] for entry in entries for file in entry["files"].values()),
        "shards": {
            name: {
                field: entry[field]
                for field in ("digest", "seconds", "peak_bytes", "attempt", "host")
            }
            for name, entry in shards.items()
        },
        "software": {name: value for entry in entries for name, value in entry["software"].items()},
        "threads": max(entry["threads"] for entry in entries),
        "device": _joined(entry["device"] for entry in entries),
        "host": _joined(entry["host"] for entry in entries),
    }


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def check_manifest(data: bytes, path: Path | str, stage: str, key: str) -> dict[str, Any]:
    """Manifest of `stage`/`key` from its bytes.

    Raises
    ------
    BadInput
        A newer version of stockpot wrote it.
    Corrupt
        It is damaged or belongs to another artifact.
    """
    refuse_newer(data, path)
    manifest = unseal(data, path)
    if (manifest.get("stage"), manifest.get("key")) != (stage, key):
        raise Corrupt(
            f"{path}: expected {stage}/{key}, found {manifest.get('stage')}/{manifest.get('key')}"
        )
    if (fault := manifest_fault(manifest)) is not None:
        raise Corrupt(f"{path}: expected the manifest of an artifact, but {fault}")
    if manifest["digest"] != payload_digest(manifest["files"]):
        raise Corrupt(f"{path}: its digest does not match its list of files")
    return manifest


def refuse_newer(data: bytes, path: Path | str) -> None:
    """Refuse a document of a newer format before anything else in it is looked at.

    Raises
    ------
    BadInput
        Naming both versions.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is int and found > FORMAT_VERSION:
        raise BadInput(
            f"{path}: written in format {found}; this stockpot ({own_version()}) reads formats up "
            f"to {FORMAT_VERSION}",
            fix="upgrade stockpot, or choose another store with --store DIR",
        )


@cache
def own_version() -> str:
    """Version of stockpot."""
    try:
        return metadata.version("stockpot")
    except metadata.PackageNotFoundError:
        return "not installed"


def software() -> dict[str, str]:
    """Versions of Python, of stockpot and of the libraries this process has loaded."""
    found = {"python": platform.python_version(), "stockpot": own_version()}
    for name in LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            found[name] = str(getattr(module, "__version__", "unknown"))
    return found


@cache
def host() -> str:
    """Name of this machine."""
    return socket.gethostname()
