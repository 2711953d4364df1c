"""Names of lossy codecs: what they mean is said by the name alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.errors import BadInput

__all__ = ["FAMILIES", "Kind", "is_lossy", "parse"]

FAMILIES = ("sq",)
"""Lossy codecs without their numbers: what a reader of them must know."""
_SQ_BITS = (1, 2, 4, 8)
_LOSSY = ("sq", "pq", "rq", "bifeat-")
LATER = ("pq", "rq", "bifeat-")


@dataclass(frozen=True)
class Kind:
    """A lossy codec by its name.

    Attributes
    ----------
    family : "sq".
    bits : of a column, of scalar codecs.
    """

    family: str
    bits: int = 0

    def row_bytes(self, num_features: int) -> int:
        """Bytes of a row of codes."""
        return -(-num_features * self.bits // 8)

    def table_bytes(self, num_features: int) -> int:
        """Bytes of its tables, at most."""
        return 4 * num_features << self.bits


def parse(name: str) -> Kind:
    """The codec a name stands for.

    >>> parse("sq4").bits
    4

    Raises
    ------
    BadInput
        No such codec in this version.
    """
    if (match := re.fullmatch(r"sq(\d+)", name)) and int(match[1]) in _SQ_BITS:
        return Kind("sq", bits=int(match[1]))
    if name.startswith(LATER):
        raise BadInput(
            f"features.codec {name}: this codec is not available in this version",
            fix="set features.codec to auto, fp32, fp16, lossless, sq1, sq2, sq4 or sq8",
        )
    raise BadInput(
        f"features.codec: expected auto, fp32, fp16, lossless, sq1, sq2, sq4 or sq8, found {name}",
        fix="read a store of a newer version of stockpot with that version",
    )


def is_lossy(name: str) -> bool:
    """Whether a recipe's codec is one that is fitted to the data; "auto" and what is not known are none."""
    return name.startswith(_LOSSY)
