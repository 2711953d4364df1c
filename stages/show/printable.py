"""Text that others wrote (names, recipes, errors) never drives the terminal: control characters are
shown, not sent.
"""

from __future__ import annotations

import re

__all__ = ["printable", "printable_json"]

_DRIVING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f"  # C0 without the line feed, DEL, C1
    # line separators and marks that turn the direction of text
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff]"  # bytes of a file name that are no UTF-8
)


def printable(text: str, *, one_line: bool = False) -> str:
    r"""The text with every character that drives a terminal as its escape; `one_line`: line feeds
    too.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if one_line:
        text = text.replace("\n", "\\n")
    return _DRIVING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable_json(text: str) -> str:
    """JSON that means the same, with such characters as JSON's own escapes."""
    return _DRIVING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
