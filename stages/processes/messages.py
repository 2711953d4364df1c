"""What ranks tell each other is JSON, and what crosses a socket is refused unless a rank of the
same run wrote it.

No byte that arrives is ever executed: values are rebuilt from JSON by a fixed list of kinds. A
message carries an HMAC (RFC 2104, SHA-256) over its place and its text, with a secret that only the
ranks of one run know.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import Conflict, StockpotError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["decoded", "encoded", "error_of", "message", "name_of", "named", "received", "told"]

_KIND = "is"  # key of a JSON object that stands for something JSON has no word for


def name_of(what: Any) -> str:
    """How a function or class of a module is named to other ranks."""
    return f"{what.__module__}:{what.__qualname__}"


def named(name: str) -> Any:
    """The function or class of that name, imported where need be.

    Raises
    ------
    Conflict
        There is none.
    """
    module, _, path = name.partition(":")
    try:
        found = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise Conflict(
            f"a rank was told of {name}, which is not here ({error})",
            fix="install the same stockpot everywhere",
        ) from error
    return found


def encoded(value: Any) -> Any:
    """A value as JSON: numbers, text, None, paths, dataclasses of a module, tuples, lists and dicts
    of these.

    Raises
    ------
    TypeError
        It holds something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return {_KIND: "path", "path": str(value)}
    if isinstance(value, tuple):
        return {_KIND: "tuple", "items": [encoded(item) for item in value]}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("expected a dict whose keys are text")
        return {_KIND: "dict", "items": {name: encoded(item) for name, item in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: encoded(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {_KIND: "dataclass", "name": name_of(type(value)), "fields": fields}
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return encoded(value.item())
    raise TypeError(f"a {type(value).__qualname__} cannot be told to other ranks")


def decoded(value: Any) -> Any:
    """What `encoded` made JSON of.

    Raises
    ------
    Conflict
        It is nothing that `encoded` makes.
    """
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    kinds: dict[str, Callable[[], Any]] = {
        "path": lambda: Path(value["path"]),
        "tuple": lambda: tuple(decoded(item) for item in value["items"]),
        "dict": lambda: {name: decoded(item) for name, item in value["items"].items()},
        "dataclass": lambda: _dataclass(value["name"], value["fields"]),
    }
    try:
        return kinds[value[_KIND]]()
    except (KeyError, TypeError, AttributeError) as error:
        raise Conflict(f"a rank was told what it does not understand ({error!r})") from error


def _dataclass(name: str, fields: dict[str, Any]) -> Any:
    kind = named(name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise Conflict(f"a rank was told of {name}, which is no dataclass")
    return kind(**{field: decoded(item) for field, item in fields.items()})


def told(error: StockpotError) -> dict[str, Any]:
    """An error as JSON; what a subclass knows beside its message goes along."""
    more = {name: value for name, value in vars(error).items() if isinstance(value, str)}
    more = {name: value for name, value in more.items() if name not in ("message", "fix")}
    return {"class": name_of(type(error)), "message": error.message, "fix": error.fix, "more": more}


def error_of(document: Any) -> StockpotError:
    """The error that `told` made JSON of; one of an unknown class is a `StockpotError` with the
    same words.
    """
    kind: Any = StockpotError
    try:
        found = named(document["class"])
        if isinstance(found, type) and issubclass(found, StockpotError):
            kind = found
        error: StockpotError = kind(document["message"], fix=document["fix"], **document["more"])
    except (Conflict, TypeError, KeyError):
        text = document.get("message") if isinstance(document, dict) else None
        return StockpotError(str(text or "a rank ended with an error of an unknown kind"))
    return error


def message(secret: bytes, place: str, document: Any) -> bytes:
    """A JSON document for others of the run to find at `place`: no other message can be put there
    instead.
    """
    text = json.dumps(document, sort_keys=True)
    return json.dumps({"text": text, "mac": _mac(secret, place, text)}).encode()


def received(secret: bytes, place: str, data: bytes) -> Any:
    """The document of a message found at `place`.

    Raises
    ------
    Conflict
        No rank of this run wrote it, or not for this place.
    """
    try:
        found = json.loads(data)
        text, mac = found["text"], found["mac"]
        sound = hmac.compare_digest(mac.encode(), _mac(secret, place, text).encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise Conflict(
            f"ranks: the message at {place} is not from a rank of this run: it was refused",
            fix="look for what else reaches this machine's ports, then run the same command again",
        )
    return json.loads(text)


def _mac(secret: bytes, place: str, text: str) -> str:
    body = place.encode() + b"\0" + text.encode()
    return hmac.new(secret, body, hashlib.sha256).hexdigest()
