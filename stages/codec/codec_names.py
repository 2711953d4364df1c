"""Names of lossy codecs: how many bytes a row and its tables take is said by the name alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stockpot.stages.errors import BadInput

__all__ = ["FAMILIES", "Kind", "is_lossy", "parse"]

FAMILIES = ("sq", "pq", "opq", "rq", "bifeat-sq", "bifeat-vq")
"""Lossy codecs without their numbers: what a reader of them must know."""
KNOWN = (
    "auto, fp32, fp16, lossless, sqK or bifeat-sqK (K = 1, 2, 4, 8 bits a column), "
    "pqM, opqM or rqM (M bytes a row), bifeat-vqW-K (K entries for every W columns)"
)
BITS = (1, 2, 4, 8)
MOST_STAGES = 32  # of rq
MOST_ENTRIES = 1 << 16  # of bifeat-vq


@dataclass(frozen=True)
class Kind:
    """A lossy codec by its name.

    Attributes
    ----------
    name, family : "sq4", "sq".
    bits : of a column, of scalar codecs, else 0.
    units : codes of a row of `pq`, `opq`, `rq`, else 0.
    width : columns a code stands for, of `bifeat-vq`, else 0.
    entries : rows of every table, at most.
    """

    name: str
    family: str
    bits: int = 0
    units: int = 0
    width: int = 0
    entries: int = 256

    @property
    def unit(self) -> int:
        """Bytes of a code: 1, 2 or 4, as BiFeat stores them."""
        return 1 if self.entries <= 1 << 8 else 2 if self.entries <= 1 << 15 else 4

    def row_bytes(self, num_features: int) -> int:
        """Bytes of a row of codes.

        Raises
        ------
        BadInput
            The codec has more codes than there are columns.
        """
        if self.family == "rq":
            return self.units
        if self.family in ("pq", "opq") and self.units > num_features:
            self._refuse(
                f"at most a byte for each of {num_features} columns", f"{self.family}{num_features}"
            )
        if self.family == "bifeat-vq" and self.width > num_features:
            self._refuse(
                f"at most {num_features} columns a code", f"bifeat-vq{num_features}-{self.entries}"
            )
        if self.bits:
            return -(-num_features * self.bits // 8)
        return self.unit * (len(self.edges(num_features)) - 1)

    def edges(self, num_features: int) -> list[int]:
        """First column of each part, and the number of columns: a part's columns are coded by the
        same code.

        Scalar codes have a part for every column, `rq` has one. The parts of `pq` differ by a
        column at most, those of `opq` too, counted in rotated columns; of `bifeat-vq` only the last
        may be narrower.
        """
        if self.bits or self.family == "rq":
            return list(range(num_features + 1)) if self.bits else [0, num_features]
        if self.family == "bifeat-vq":
            return [*range(0, num_features, self.width), num_features]
        return [num_features * u // self.units for u in range(self.units + 1)]

    def table_bytes(self, num_features: int) -> int:
        """Bytes of its tables, at most."""
        if self.family == "bifeat-sq":
            return 4 << self.bits
        if self.bits:
            return 4 * num_features << self.bits
        rotation = 4 * num_features * (num_features + 1) if self.family == "opq" else 0
        return (
            4 * num_features * self.entries * max(1, self.units if self.family == "rq" else 1)
            + rotation
        )

    def coder_bytes(self, num_features: int) -> int:
        """Bytes of what encodes: tables as fitted and as they are searched, sums, and products of
        stages.
        """
        search = 4 * 256 * 256 * self.units * (self.units - 1) // 2 if self.family == "rq" else 0
        return 10 * self.table_bytes(num_features) + search

    def _refuse(self, expected: str, fix: str) -> None:
        raise BadInput(
            f"features.codec {self.name}: expected {expected}", fix=f"--set features.codec={fix}"
        )


def parse(name: str) -> Kind:
    """The codec a name stands for.

    >>> parse("sq4").bits, parse("rq8").units, parse("bifeat-vq16-2048").unit
    (4, 8, 2)

    Raises
    ------
    BadInput
        No such codec in this version.
    """
    if match := re.fullmatch(r"(sq|bifeat-sq|pq|opq|rq)([1-9]\d{0,5})", name):
        family, number = match[1], int(match[2])
        if family.endswith("sq") and number in BITS:
            return Kind(name, family, bits=number, entries=2**number)
        if family in ("pq", "opq") or (family == "rq" and number <= MOST_STAGES):
            return Kind(name, family, units=number)
    if match := re.fullmatch(r"bifeat-vq([1-9]\d{0,5})-([1-9]\d{0,5})", name):
        width, entries = int(match[1]), int(match[2])
        if 2 <= entries <= MOST_ENTRIES:
            return Kind(name, "bifeat-vq", width=width, entries=entries)
    raise BadInput(
        f"features.codec: expected {KNOWN}, found {name}",
        fix="--set features.codec=auto; a store of a newer version is read with that version",
    )


def is_lossy(name: str) -> bool:
    """Whether a recipe's codec is one that is fitted to the data; "auto" and what is not known are
    none.
    """
    return name.startswith(FAMILIES)
