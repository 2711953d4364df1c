"""How a csv file is written is told from its first lines: what separates fields, what stands before
the first row.

Nothing else is guessed: a file that goes on otherwise than it begins is refused in the row where it
does.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PLAIN", "Dialect", "decompressed", "is_float", "is_integer", "sniff"]

_SAMPLE_BYTES = 1 << 16
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "blank"}
_COMMENT = re.compile(r"\s*(#(#|\s|$)|%(%|\s|$))")
"""A name may begin with such a mark, a comment has a blank after it."""
_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_FLOAT = re.compile(r"\s*[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)\s*")


@dataclass(frozen=True)
class Dialect:
    """How a csv file is written.

    Attributes
    ----------
    delimiter : what separates fields.
    skip : lines before the first row: blank ones and comments.
    decimal : what separates the decimals of numbers.
    fields : of the first row, blanks around them removed.
    """

    delimiter: str = ","
    skip: int = 0
    decimal: str = "."
    fields: tuple[str, ...] = ()


PLAIN = Dialect()


def sniff(path: Path, fits: Callable[[list[str]], bool]) -> Dialect:
    """The dialect of a file, perhaps gzipped, from its first 64 kB.

    Parameters
    ----------
    fits : whether fields are a first row that is expected; the first delimiter under which they are
        is taken, a comma where they are under none.

    Raises
    ------
    BadInput
        The file has no rows, is not UTF-8, or its first row ends with a delimiter.
    """
    lines = re.split(r"\r\n|\r|\n", _text(path))
    first = next((at for at, line in enumerate(lines) if not _passed(line)), None)
    if first is None:
        found = "comments alone" if any(line.strip() for line in lines) else "nothing"
        raise _bad(
            path, f"expected readable csv with rows, found {found}", f"write {path.name} again"
        )
    rows = {delimiter: _fields(lines[first], delimiter) for delimiter in _DELIMITERS}
    delimiter = next((mark for mark, fields in rows.items() if fits(fields)), ",")
    fields = rows[delimiter]
    if fields[-1] == "" and len(fields) > 1:
        raise _bad(
            path,
            f"row {first + 1}: expected a value after the last {_DELIMITERS[delimiter]}, found "
            f"nothing",
            f"remove the {_DELIMITERS[delimiter]} at the end of every row",
        )
    if fields[0] == "" and len(fields) > 1:
        raise _bad(
            path,
            f"row {first + 1}: expected a name for the first column, found none: pandas writes its "
            f"index so",
            "write it with frame.to_csv(..., index=False)",
        )
    dialect = Dialect(delimiter, first, ".", tuple(fields))
    after = (field for line in lines[first:-1] for field in _fields(line, delimiter))
    if delimiter != "," and any(_DECIMAL_COMMA.fullmatch(field) for field in after):
        dialect = replace(dialect, decimal=",")
    return dialect


def _passed(line: str) -> bool:
    return not line.strip() or _COMMENT.match(line) is not None


def _fields(line: str, delimiter: str) -> list[str]:
    row = next(csv.reader([line], delimiter=delimiter), [])
    return [field.strip() for field in row] or [""]


def _text(path: Path) -> str:
    sample = decompressed(path, _SAMPLE_BYTES)
    wide = next((name for mark, name in _WIDE.items() if sample.startswith(mark)), None)
    if wide or b"\x00" in sample:
        name = wide or "UTF-16"
        found = name if wide else "bytes of zero"
        mend = f"iconv -f {name} -t UTF-8 {path.name} > new.csv && mv new.csv {path.name}"
        raise _bad(path, f"expected UTF-8 text, found {found}", mend)
    try:
        return sample.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start >= len(sample) - 3 and len(sample) == _SAMPLE_BYTES:
            return sample[: error.start].decode("utf-8-sig")  # the sample ends within a character
        row = sample.count(b"\n", 0, error.start) + 1
        raise _bad(
            path,
            f"row {row}: expected UTF-8 text, found the byte 0x{sample[error.start]:02x}",
            f"iconv -f LATIN1 -t UTF-8 {path.name} > new.csv && mv new.csv {path.name}",
        ) from error


def decompressed(path: Path, most: int) -> bytes:
    """The first bytes of a file, of what it holds where its name ends in .gz.

    Raises
    ------
    BadInput
        It cannot be read, or it is no gzip file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise _bad(
            path, f"expected readable csv, found: {error}", f"write {path.name} again"
        ) from error


def is_integer(text: str) -> bool:
    """Whether a field is a whole number without a point."""
    text = text.strip()
    return text.lstrip("+-").isdigit() and len(text) - len(text.lstrip("+-")) <= 1


def is_float(text: str) -> bool:
    """Whether a field is a number with a point or an exponent."""
    return _FLOAT.fullmatch(text) is not None


def _bad(path: Path, text: str, fix: str) -> BadInput:
    return BadInput(f"{path}: {text}", fix=fix)
