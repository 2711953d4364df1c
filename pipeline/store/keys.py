"""The same stage, parameters and input contents always give the same key, and a change to any of
them gives another.

API: `artifact_key(stage_name, stage_version, params, inputs)` -> 32 hex characters, and
`FORMAT_VERSION`. Nothing else enters a key: no path, host, time or worker count.
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from stockpot.stages.stage import OFF

__all__ = ["FORMAT_VERSION", "artifact_key", "canonical", "plain"]

FORMAT_VERSION = 1
"""Version of the layout of artifacts; hashed into every key and written into every manifest."""

_DIGEST = re.compile(r"[0-9a-f]{32}")


def canonical(value: Any) -> bytes:
    """Encode a value so that equal values give equal bytes and different ones never do.

    Every part is prefixed by its type and length, so ("a", "b") differs from ("ab",), 1 from 1.0,
    True and "1". The order of a dict's keys does not matter; tuples count as lists; a dataclass
    counts as the dict of its fields without those of `stockpot.stages.stage.added` that are off.

    Parameters
    ----------
    value : None, bool, int, finite float, str, or lists, tuples, dicts with str keys and
        dataclasses of these.

    Raises
    ------
    TypeError
        For any other type: it has no encoding that is the same everywhere.
    ValueError
        For NaN and infinities.

    Examples
    --------
    >>> canonical(("a", "b")) == canonical(("ab",))
    False
    """
    out = bytearray()
    _encode(value, out, "value")
    return bytes(out)


def _encode(value: Any, out: bytearray, where: str) -> None:
    if value is None:
        out += b"N"
    elif type(value) is bool:
        out += b"T" if value else b"F"
    elif type(value) is int:
        out += _prefixed(b"i", str(value).encode())
    elif type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: only finite numbers can be part of a key")
        # -0.0 == 0.0, and equal values must give equal keys.
        out += b"f" + struct.pack(">d", value + 0.0)
    elif type(value) is str:
        out += _prefixed(b"s", value.encode())
    elif isinstance(value, (list, tuple)):
        out += b"l%d:" % len(value)
        for i, item in enumerate(value):
            _encode(item, out, f"{where}[{i}]")
    elif isinstance(value, Mapping):
        if not all(type(name) is str for name in value):
            raise TypeError(f"{where} has a key that is not a string")
        out += b"d%d:" % len(value)
        for name in sorted(value):
            out += _prefixed(b"s", name.encode())
            _encode(value[name], out, f"{where}.{name}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _encode(_fields(value), out, where)
    else:
        raise TypeError(f"{where} is a {type(value).__qualname__}, which has no canonical encoding")


def _prefixed(tag: bytes, data: bytes) -> bytes:
    return tag + b"%d:" % len(data) + data


def plain(params: Any) -> dict[str, Any]:
    """Parameters as a JSON dict: fields of a (nested) dataclass, additions that are off left out,
    or a dict.

    Tuples become lists.

    Raises
    ------
    TypeError, ValueError
        Where a value has no canonical encoding (see `canonical`).
    """
    canonical(params)
    out = _plain(params)
    if not isinstance(out, dict):
        raise TypeError(f"parameters are a dataclass or a dict, found {type(params).__qualname__}")
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(item) for name, item in _fields(value).items()}
    return value


def _fields(value: Any) -> dict[str, Any]:
    """Fields of a dataclass that count: all but later additions that are off."""
    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    off = {
        field.name: field.metadata[OFF]
        for field in dataclasses.fields(value)
        if OFF in field.metadata
    }
    return {
        name: item
        for name, item in found.items()
        if name not in off or canonical(item) != canonical(off[name])
    }


def artifact_key(
    stage_name: str,
    stage_version: int,
    params: Any,
    inputs: Sequence[tuple[str, str]],
    format_version: int = FORMAT_VERSION,
) -> str:
    """Key of the artifact a stage builds from resolved parameters and input contents.

    Parameters
    ----------
    params : frozen dataclass or dict of the stage's resolved parameters.
    inputs : (role, digest) of every input artifact or source; their order does not matter, a role
        may stand once.

    Returns
    -------
    32 hex characters (blake3).

    Raises
    ------
    ValueError
        A role stands twice, an input has no digest, or a parameter is not finite: there is never a
        random or path-based key instead.
    """
    roles = [role for role, _ in inputs]
    if len(set(roles)) != len(roles):
        raise ValueError(
            f"stage {stage_name}: a role stands twice among its inputs: {sorted(roles)}"
        )
    for role, digest in inputs:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(
                f"stage {stage_name}: input {role!r} has no digest of 32 hex characters: {digest!r}"
            )
    pairs = [list(pair) for pair in sorted(inputs)]
    encoded = canonical(
        ["stockpot-key", format_version, stage_name, stage_version, plain(params), pairs]
    )
    return blake3(encoded).hexdigest(length=16)
