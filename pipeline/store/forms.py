"""A sealed document has the fields and the types of its kind, and names no file outside its own
folder.

A seal says that a document is what was written, not that what was written makes sense: here is what
may be relied on. API: `manifest_fault(document)` and `entry_fault(document)`: what is wrong with
one in words, None where nothing is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["entry_fault", "inside", "manifest_fault"]

_HEX = re.compile(r"[0-9a-f]{32}")
_ATTEMPT = re.compile(r"attempt-[0-9a-f]{32}")
_MOST = 1 << 63
"""No size or count is larger: what holds them has 64 bits."""
_MOST_S = 1 << 37
"""Nor a time: the calendar of Python ends with the year 9999."""


def inside(name: str) -> bool:
    """Whether a name is the relative path of a file below a folder: not absolute, without `..`, in
    plain form.
    """
    path = PurePosixPath(name)
    plain = bool(name) and str(path) == name and "\0" not in name and name != "."
    return plain and not path.is_absolute() and ".." not in path.parts


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < _MOST_S


def _texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())


def _tables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())


def _parents(value: Any) -> bool:
    names = ("role", "stage", "key", "digest")
    return isinstance(value, list) and all(
        isinstance(one, Mapping) and all(isinstance(one.get(name), str) for name in names)
        for one in value
    )


_SHARED: Mapping[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is int and value >= 1,
    "stage": _text,
    "key": _digest,
    "digest": _digest,
    "files": _table,
    "facts": _table,
    "notes": _table,
    "started": _seconds,
    "seconds": _seconds,
    "peak_bytes": _count,
    "threads": _count,
    "device": _text,
    "host": _text,
    "software": _texts,
}
_MANIFEST: Mapping[str, Callable[[Any], bool]] = {
    **_SHARED,
    "version": _count,
    "params": _table,
    "parents": _parents,
    "bytes_written": _count,
    "notes": _tables,
    "shards": _tables,
}
_ENTRY: Mapping[str, Callable[[Any], bool]] = {
    **_SHARED,
    "shard": _text,
    "attempt": lambda value: isinstance(value, str) and _ATTEMPT.fullmatch(value) is not None,
    "uses": _texts,
}


def manifest_fault(document: Mapping[str, Any]) -> str | None:
    """What makes a document no manifest of an artifact."""
    return _fault(document, _MANIFEST)


def entry_fault(document: Mapping[str, Any]) -> str | None:
    """What makes a document no entry of a published shard."""
    return _fault(document, _ENTRY)


def _fault(document: Mapping[str, Any], fields: Mapping[str, Callable[[Any], bool]]) -> str | None:
    for name, holds in fields.items():
        if name not in document:
            return f"it has no {name}"
        if not holds(document[name]):
            return f"its {name} makes no sense"
    for name, file in document["files"].items():
        if not inside(name) or name == "manifest.json":
            return f"it names {name!r}, which is no file of its folder"
        sound = (
            isinstance(file, Mapping) and _count(file.get("size")) and _digest(file.get("digest"))
        )
        if not sound or (
            "crc32c" in file and not (_count(file["crc32c"]) and file["crc32c"] < 1 << 32)
        ):
            return f"size, digest or crc32c of {name!r} makes no sense"
    return None
