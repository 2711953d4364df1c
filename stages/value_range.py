"""Numbers that a recipe key takes: checked and put into words in one place, so that both say the
same.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

from stockpot.stages.errors import BadInput

__all__ = ["MOST_TEXT", "Range", "check_text", "shown"]

MOST_TEXT = 1024
"""Characters of the longest text a key takes: more than any path that is typed, and short enough to
be shown."""

_MOST_SHOWN = 120
"""Characters of a value that an error message repeats."""


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`.

    Attributes
    ----------
    least, most : both taken, but for `above` and `below`.
    above : `least` itself is not taken.
    below : `most` itself is not taken.
    also : single values beside them, with what they stand for: {-1: "all"}.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    also: tuple[tuple[int, str], ...] = ()

    def __contains__(self, value: float) -> bool:
        if any(value == single for single, _ in self.also):
            return True
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        return low and high  # a NaN is in none

    @property
    def words(self) -> str:
        """The range as messages say it.

        >>> Range(0, 1, below=True).words, Range(1, 50, also=((-1, "all"),)).words
        ('from 0, below 1', 'from 1 to 50, or -1 (all)')
        """
        low = f"above {_number(self.least)}" if self.above else f"from {_number(self.least)}"
        high = f"below {_number(self.most)}" if self.below else f"to {_number(self.most)}"
        text = f"{low}, {high}" if self.below else f"{low} {high}"
        return text + "".join(f", or {value} ({what})" for value, what in self.also)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def check_text(name: str, value: str, where: str) -> None:
    """Refuse a text that no file, module or codec is called by.

    Raises
    ------
    BadInput
        It is longer than `MOST_TEXT` characters, or holds control characters or bytes that are no
        UTF-8.
    """
    if len(value) > MOST_TEXT:
        raise BadInput(
            f"{where}: {name}: expected at most {MOST_TEXT} characters, found {len(value)}",
            fix=f"shorten {name}",
        )
    for at, character in enumerate(value):
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise BadInput(
                f"{where}: {name}: expected text without control characters and in UTF-8, "
                f"found U+{ord(character):04X} at character {at + 1}",
                fix=f"write {name} without it; a file of such a name must be renamed",
            )


def shown(value: Any) -> str:
    """A value as an error message repeats it: as in TOML, cut where it is long, never an error of
    its own.

    >>> shown(True), shown("a"), shown([1, 2]), shown(10**5000)
    ('true', '"a"', '[1, 2]', 'an integer of about 5001 digits')
    """
    if type(value) is int and value.bit_length() > 64 * 8:
        return f"an integer of about {math.ceil(value.bit_length() * math.log10(2))} digits"
    text = _shown(value, 4)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _shown(value: Any, depth: int) -> str:
    """`value` in TOML, at most `depth` levels and a few dozen items of it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        cut = value[: _MOST_SHOWN + 1]
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut) + '"'
    if isinstance(value, dict | list | tuple):
        if not depth:
            return "…"
        pairs = list(value.items())[:_MOST_SHOWN] if isinstance(value, dict) else None
        if pairs is not None:
            return "{" + ", ".join(f"{_bare(k)} = {_shown(v, depth - 1)}" for k, v in pairs) + "}"
        return "[" + ", ".join(_shown(item, depth - 1) for item in value[:_MOST_SHOWN]) + "]"
    if type(value) is int and value.bit_length() > 64 * 8:
        return "…"
    return str(value)


def _bare(key: str) -> str:
    return key if key.isidentifier() else _shown(key, 1)
