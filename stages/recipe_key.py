"""A recipe key, declared by the stage whose section holds it: its default, its unit, the reason for
it, its range.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from stockpot.stages.value_range import Range

__all__ = ["BELOW_ONE", "INSIDE", "MANY", "MOST_LIST", "SEED", "SHARE", "Auto", "key"]

SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, below=True)
INSIDE = Range(0, 1, above=True, below=True)
SEED = Range(0, 2**63 - 1)
MANY = Range(1, 10**6)
"""Numbers of neighbours, clusters, epochs: far above any use, far below what would never end."""
MOST_LIST = 64
"""Entries of the longest list a key takes."""

Auto = Literal["auto"]


def key(default: Any, about: str, within: Range | None = None, *, mend: str = "") -> Any:
    """Field with its unit and reason, which `stockpot recipe --defaults` prints, and the numbers it
    takes.

    Parameters
    ----------
    within : range of a number, and of every number of a list; every key that takes numbers has one.
    mend : what an error says to do; empty: to take the default.
    """
    return field(default=default, metadata={"about": about, "within": within, "mend": mend})
