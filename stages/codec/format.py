"""A code is readable from its description, its tables and its bytes alone; lossless codes decode to
what was encoded.

Bytes are little-endian. `fp32`, `fp16`: the row as it is. `lossless-bits`: column j is bit j % 8
(lowest first) of byte j // 8. `lossless-sparse`: rows of varying length, the ascending ids of the
columns that are 1, 2 or 4 bytes each. `lossless-values`: the fp32 values that are not 0, then the
ascending ids of their columns.

All others are *additive*: each code of a row chooses a row of its own table, which covers some
columns, and the decoded row is the sum of these (`stockpot.stages.codec.lookup`). `sqK`,
`bifeat-sqK`: K bits a column, column j in byte j // (8 / K), the lowest bits first. `pqM`,
`bifeat-vqW-K`: a code for each slice of the columns. `rqM`: M codes, each for all columns. `opqM`:
as `pqM` of rotated columns; the rotation is multiplied into the tables, which then are for all
columns too.

Some rows of an additive code may have *further* stages, a code of their own for what the first
leaves: what it decodes to is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.codec_names import parse
from stockpot.stages.errors import BadInput, Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.codec.lookup import Lookup
    from stockpot.stages.stage import Reader

__all__ = ["EXACT", "FURTHER", "TABLE", "Codec", "add_further", "decode", "describe"]

EXACT = ("fp32", "fp16", "lossless-bits", "lossless-sparse", "lossless-values")
"""Codecs without tables."""
TABLE = "table_"
"""What the names of table arrays begin with in an artifact of codes."""
FURTHER = "table_1_"
"""The same of the tables of further stages."""
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Codec:
    """Description of a code, and its tables.

    Attributes
    ----------
    name : one of `EXACT`, or of a lossy codec ("sq4").
    num_features : columns of the decoded rows.
    row_bytes : bytes of every row; None where rows vary in length and a row pointer stands beside
        the codes.
    index_bytes : width of a column id where rows vary in length, else None.
    tables : arrays f2 or f4 by name; only of lossy codecs. In neither equality nor JSON, which
        holds their shapes.
    further : the codec of what is added to some rows, or None.
    """

    name: str
    num_features: int
    row_bytes: int | None
    index_bytes: int | None = None
    tables: Mapping[str, NDArray[Any]] = field(
        default_factory=lambda: _NONE, compare=False, repr=False
    )
    further: Codec | None = None

    @property
    def family(self) -> str:
        """What a reader must know to decode it: the name without its numbers."""
        return self.name if self.name in EXACT else parse(self.name).family

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry that is not 0, where rows vary in length."""
        return int(self.index_bytes or 0) + (4 if self.name == "lossless-values" else 0)

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables as they are stored."""
        own = sum(table.nbytes for table in self.tables.values())
        return own + (0 if self.further is None else self.further.table_bytes)

    @cached_property
    def lookup(self) -> Lookup:
        """The tables as decoding uses them, made once.

        Raises
        ------
        BadInput
            The codec has no tables: it is exact, or only its description was read.
        """
        from stockpot.stages.codec.lookup import expand

        if not self.tables:
            raise BadInput(
                f"codec {self.name}: expected its tables beside the description, found none"
            )
        return expand(parse(self.name), self.num_features, self.tables)

    def to_json(self) -> dict[str, Any]:
        """The description as it stands in facts and in the metadata of packed files."""
        names = ("name", "num_features", "row_bytes", "index_bytes")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.tables:
            found["tables"] = {
                name: [t.dtype.str, list(t.shape)] for name, t in sorted(self.tables.items())
            }
        if self.further is not None:
            found["further"] = self.further.to_json()
        return found

    def tables_to_bytes(self) -> bytes:
        """All tables one after the other, by name, then those of further stages; `to_json` says
        what they are.
        """
        own = b"".join(
            np.ascontiguousarray(self.tables[name]).tobytes() for name in sorted(self.tables)
        )
        return own + (b"" if self.further is None else self.further.tables_to_bytes())

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], tables: bytes | Mapping[str, NDArray[Any]] | None = None
    ) -> Codec:
        """Inverse of `to_json`; keys it does not know are ignored.

        Parameters
        ----------
        tables : the tables, or `tables_to_bytes` of them; None gives a description that does not
            decode lossy codes.

        Raises
        ------
        BadInput
            This version cannot decode that codec.
        Corrupt
            The tables are not those of the description.
        """
        shapes = dict(value.get("tables") or {})
        if (rest := value.get("further")) is not None:
            first = {name: item for name, item in value.items() if name != "further"}
            if isinstance(tables, bytes):
                size = _size(shapes)
                return replace(
                    cls.from_json(first, tables[:size]), further=cls.from_json(rest, tables[size:])
                )
            return replace(cls.from_json(first, tables), further=cls.from_json(rest))
        if isinstance(tables, bytes):
            tables = _split(tables, shapes)
        codec = describe(str(value["name"]), int(value["num_features"]), tables)
        found = (value.get("row_bytes"), value.get("index_bytes"))
        if found != (codec.row_bytes, codec.index_bytes):
            raise BadInput(
                f"codec {codec.name}: expected row_bytes, index_bytes = {codec.row_bytes}, "
                f"{codec.index_bytes} for "
                f"{codec.num_features} features, found {found[0]}, {found[1]}",
                fix="read this store with the version of stockpot that wrote it",
            )
        if tables is not None and codec.to_json().get("tables", {}) != shapes:
            raise Corrupt(
                f"codec {codec.name}: expected tables {shapes}, found "
                f"{codec.to_json().get('tables', {})}"
            )
        return codec

    @classmethod
    def from_reader(cls, codes: Reader) -> Codec:
        """The codec of an artifact of codes, with its tables."""
        described = codes.facts["description"]
        codec = cls.from_json(
            described, {n: codes.array(TABLE + n) for n in described.get("tables") or {}}
        )
        if (rest := described.get("further")) is None:
            return codec
        further = cls.from_json(rest, {n: codes.array(FURTHER + n) for n in rest["tables"]})
        return replace(codec, further=further)


def _size(shapes: Mapping[str, Any]) -> int:
    return sum(
        np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        for dtype, shape in shapes.values()
    )


def _split(blob: bytes, shapes: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    tables, start = {}, 0
    for name in sorted(shapes):
        dtype, shape = np.dtype(shapes[name][0]), tuple(shapes[name][1])
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if start + size <= len(blob):
            tables[name] = np.frombuffer(blob, dtype, size // dtype.itemsize, start).reshape(shape)
        start += size
    if start != len(blob):
        raise Corrupt(f"codec: expected tables of {start} bytes, found {len(blob)}")
    return tables


def describe(
    name: str, num_features: int, tables: Mapping[str, NDArray[Any]] | None = None
) -> Codec:
    """Description of codec `name` for rows of `num_features` columns.

    >>> describe("lossless-bits", 10).row_bytes
    2
    >>> describe("sq4", 9).row_bytes
    5

    Raises
    ------
    BadInput
        No such codec in this version, or not for so few columns.
    """
    if name == "fp32":
        return Codec(name, num_features, 4 * num_features)
    if name == "fp16":
        return Codec(name, num_features, 2 * num_features)
    if name == "lossless-bits":
        return Codec(name, num_features, (num_features + 7) // 8)
    if name in ("lossless-sparse", "lossless-values"):
        return Codec(name, num_features, None, 2 if num_features <= 1 << 16 else 4)
    return Codec(
        name,
        num_features,
        parse(name).row_bytes(num_features),
        None,
        MappingProxyType(dict(tables or {})),
    )


def decode(
    codec: Codec,
    codes: NDArray[np.uint8],
    code_indptr: NDArray[np.integer[Any]] | None = None,
    *,
    out: NDArray[np.float32] | None = None,
    rows: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Feature rows of codes.

    Parameters
    ----------
    codec : their description, with its tables.
    codes : u1[n, row_bytes]; u1[total] where rows vary in length.
    code_indptr : i4 or i8[n + 1], first byte of each row in `codes`; only where rows vary in
        length.
    out : f4[m, num_features], C-contiguous, written in place; a new array where None.
    rows : i4[n], row of `out` that row i of the codes goes to, each once; i where None.

    Returns
    -------
    f4[m, num_features], m = n where `out` is None. O(n num_features) a table that covers a column,
    one pass.

    Raises
    ------
    Corrupt
        A stored id is outside the row or table (only possible where bytes were not checked before).
    """
    n = len(codes) if codec.row_bytes is not None else _pointer(code_indptr).size - 1
    if out is None:
        out = np.empty((n, codec.num_features), np.float32)
    if codec.name in {"fp32", "fp16"}:
        values = (
            codes.reshape(-1)
            .view("<f4" if codec.name == "fp32" else "<f2")
            .reshape(n, codec.num_features)
        )
        if rows is None:
            out[:n] = values
        else:
            out[rows] = values
        return out
    where = np.arange(n, dtype=np.int32) if rows is None else rows
    if codec.name not in EXACT:
        codec.lookup.decode(codes, where, out)
        return out
    from stockpot.stages.codec import bits

    if codec.name == "lossless-bits":
        bits.unpack(codes, where, out)
        return out
    if codec.name == "lossless-values":
        wrong = bits.scatter_values(
            _pointer(code_indptr), codes, codec.index_bytes, where, out.view(np.uint32)
        )
        if wrong >= 0:
            raise Corrupt(
                f"codes: expected column ids below {codec.num_features}, found a larger one"
            )
        return out
    ids = codes.view("<u2" if codec.index_bytes == 2 else "<u4")
    if bits.scatter(_pointer(code_indptr), ids, codec.index_bytes, where, out) >= 0:
        raise Corrupt(f"codes: expected column ids below {codec.num_features}, found a larger one")
    return out


def add_further(
    codec: Codec, codes: NDArray[np.uint8], rows: NDArray[Any], out: NDArray[np.float32]
) -> None:
    """Add further stages to decoded rows: what `codes` (u1[k, bytes]) stand for, to `out[rows]`;
    each row once.
    """
    if codec.further is None:
        raise BadInput(
            f"codec {codec.name}: expected further stages in its description, found none"
        )
    out[rows] += decode(codec.further, codes)


def _pointer(code_indptr: NDArray[np.integer[Any]] | None) -> NDArray[np.integer[Any]]:
    if code_indptr is None:
        raise BadInput("codes of varying length: expected code_indptr beside them, found none")
    return code_indptr
