"""A code is readable from its description and its bytes alone; lossless codes decode to exactly what was encoded.

Bytes are little-endian. `fp32`, `fp16`: the row as it is. `lossless-bits`: column j is bit j % 8 (lowest first) of byte
j // 8. `lossless-sparse`: rows of varying length, the ascending ids of the columns that are 1, 2 or 4 bytes each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput, Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["CODECS", "Codec", "decode", "describe"]

CODECS = ("fp32", "fp16", "lossless-bits", "lossless-sparse")


@dataclass(frozen=True)
class Codec:
    """Description of a code.

    Attributes
    ----------
    name : one of `CODECS`.
    num_features : columns of the decoded rows.
    row_bytes : bytes of every row; None where rows vary in length and a row pointer stands beside the codes.
    index_bytes : width of a column id of `lossless-sparse`, else None.
    """

    name: str
    num_features: int
    row_bytes: int | None
    index_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The description as it stands in facts and in the metadata of packed files."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Codec:
        """Inverse of `to_json`; keys it does not know are ignored.

        Raises
        ------
        BadInput
            This version cannot decode that codec.
        """
        codec = describe(str(value["name"]), int(value["num_features"]))
        found = (value.get("row_bytes"), value.get("index_bytes"))
        if found != (codec.row_bytes, codec.index_bytes):
            raise BadInput(
                f"codec {codec.name}: expected row_bytes, index_bytes = {codec.row_bytes}, {codec.index_bytes} for "
                f"{codec.num_features} features, found {found[0]}, {found[1]}",
                fix="read this store with the version of stockpot that wrote it",
            )
        return codec


def describe(name: str, num_features: int) -> Codec:
    """Description of codec `name` for rows of `num_features` columns.

    >>> describe("lossless-bits", 10).row_bytes
    2

    Raises
    ------
    BadInput
        No such codec in this version.
    """
    if name == "fp32":
        return Codec(name, num_features, 4 * num_features)
    if name == "fp16":
        return Codec(name, num_features, 2 * num_features)
    if name == "lossless-bits":
        return Codec(name, num_features, (num_features + 7) // 8)
    if name == "lossless-sparse":
        return Codec(name, num_features, None, 2 if num_features <= 1 << 16 else 4)
    raise BadInput(
        f"codec {name}: expected one of {', '.join(CODECS)}", fix="read this store with a newer version of stockpot"
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
    codec : their description.
    codes : u1[n, row_bytes]; u1[total] where rows vary in length.
    code_indptr : i4 or i8[n + 1], first byte of each row in `codes`; only where rows vary in length.
    out : f4[m, num_features], C-contiguous, written in place; a new array where None.
    rows : i4[n], row of `out` that row i of the codes goes to, each once; i where None.

    Returns
    -------
    f4[m, num_features], m = n where `out` is None. O(n num_features), one pass.

    Raises
    ------
    Corrupt
        A stored column id is outside the row (only possible where bytes were not checked before).
    """
    n = len(codes) if codec.row_bytes is not None else _pointer(code_indptr).size - 1
    if out is None:
        out = np.empty((n, codec.num_features), np.float32)
    if codec.name in {"fp32", "fp16"}:
        values = codes.reshape(-1).view("<f4" if codec.name == "fp32" else "<f2").reshape(n, codec.num_features)
        if rows is None:
            out[:n] = values
        else:
            out[rows] = values
        return out
    from stages.quantize import bits

    where = np.arange(n, dtype=np.int32) if rows is None else rows
    if codec.name == "lossless-bits":
        bits.unpack(codes, where, out)
        return out
    ids = codes.view("<u2" if codec.index_bytes == 2 else "<u4")
    if bits.scatter(_pointer(code_indptr), ids, codec.index_bytes, where, out) >= 0:
        raise Corrupt(f"codes: expected column ids below {codec.num_features}, found a larger one")
    return out


def _pointer(code_indptr: NDArray[np.integer[Any]] | None) -> NDArray[np.integer[Any]]:
    if code_indptr is None:
        raise BadInput("codes of varying length: expected code_indptr beside them, found none")
    return code_indptr
