"""Every key of a recipe: those of the stages' sections, and `[resources]`, which stands in no
artifact's key.
"""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal

from stockpot.planning import registry
from stockpot.stages.recipe_key import MOST_LIST, Auto, key
from stockpot.stages.units import MOST_BYTES
from stockpot.stages.value_range import Range, shown

__all__ = ["SECTIONS", "Key", "Resources", "keys", "section_types"]


@dataclass(frozen=True)
class Resources:
    memory: int | str = key(
        "auto",
        'all tasks together, as "2GB" or bytes; auto: 80 % of what is free now, on a cluster what '
        "a worker may use",
        Range(1, MOST_BYTES),
    )
    workers: int | Auto = key(
        "auto",
        "processes; auto: cores, as far as the memory budget carries; all of a cluster",
        Range(1, 4096),
    )
    scheduler: str = key(
        "local",
        "local: processes of this machine | tcp://HOST:PORT of a Dask scheduler elsewhere, tls:// "
        "where it encrypts",
    )


SECTIONS: dict[str, type] = {**registry.SECTIONS, "resources": Resources}
"""Section -> the frozen dataclass of its keys, in the order of the stages."""


@dataclass(frozen=True)
class Key:
    """One recipe key: dotted name, type, default, unit and reason, the numbers it takes, and what
    mends a wrong one.
    """

    name: str
    type: Any
    default: Any
    about: str
    within: Range | None = None
    mend: str = ""

    @property
    def expected(self) -> str:
        """The type in words, as error messages say it."""
        return _words(self.type, "")

    @property
    def range(self) -> str:
        """Type and range in words, as messages about a value out of it say them."""
        return _words(self.type, "" if self.within is None else f" {self.within.words}")

    @property
    def line(self) -> str:
        """Unit, reason and range, as `stockpot recipe --defaults` prints them."""
        return self.about if self.within is None else f"{self.about}; {self.within.words}"

    @property
    def fix(self) -> str:
        """What to do where it has a value that it does not take."""
        value = shown(self.default).replace(" ", "").replace('"', "")
        return (
            self.mend or f"--set {self.name}={value}, the default, or another value that it takes"
        )


def _words(kind: Any, within: str) -> str:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(part, within) for part in typing.get_args(kind))
    if origin is tuple:
        return f"a list of {f'1 to {MOST_LIST} integers, each{within}' if within else 'integers'}"
    names = {
        int: f"an integer{within}",
        float: f"a number{within}",
        str: "a string",
        bool: "true or false",
    }
    return names.get(kind, "a table")


@cache
def section_types(cls: type) -> dict[str, Any]:
    """Field name -> evaluated type of a section's dataclass."""
    return typing.get_type_hints(cls)


@cache
def keys() -> dict[str, Key]:
    """All leaf keys by dotted name, in the order of the recipe."""
    found: dict[str, Key] = {}

    def walk(cls: type, prefix: str) -> None:
        hints = section_types(cls)
        for item in fields(cls):
            name = f"{prefix}.{item.name}"
            if is_dataclass(item.default):
                walk(type(item.default), name)
            else:
                found[name] = Key(name, hints[item.name], item.default, **item.metadata)

    for section, cls in SECTIONS.items():
        walk(cls, section)
    return found
