"""Feature rows by node id, of an artifact of codes: bytes of the rows asked for, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.format import Codec, add_further, decode
from stockpot.stages.pack.build import gather_further, gather_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = ["NodeRows"]

_DECODE_ROWS = 65_536


class NodeRows:
    """Rows of all nodes as an artifact of codes has them; its arrays are mapped, nothing is copied.

    Parameters
    ----------
    codes : artifact of `quantize`.
    """

    def __init__(self, codes: Reader) -> None:
        self.codec = Codec.from_reader(codes)
        self.num_nodes = int(codes.facts["num_nodes"])
        self.num_features = self.codec.num_features
        self._codes = codes.array("codes")
        self._pointer = None if self.codec.row_bytes is not None else codes.array("code_indptr")
        self._further: tuple[NDArray[Any], NDArray[Any]] | None = None
        if self.codec.further is not None:
            self._further = codes.array("codes_1_rows"), codes.array("codes_1")

    def of(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Decoded rows f4[n, num_features] of nodes `ids`, i4|i8[n], in their order, repeats and
        all. O(n num_features), one read a row.
        """
        pointer, found = gather_rows(ids, self._pointer, self._codes)
        rows = decode(self.codec, found, pointer)
        if self._further is not None:
            more, at = gather_further(ids, *self._further)
            add_further(self.codec, more, at, rows)
        return rows

    def all(self) -> NDArray[np.float32]:
        """Decoded rows of all nodes, f4[num_nodes, num_features], block by block."""
        out = np.empty((self.num_nodes, self.num_features), np.float32)
        for start in range(0, self.num_nodes, _DECODE_ROWS):
            stop = min(start + _DECODE_ROWS, self.num_nodes)
            if self._pointer is None:
                decode(self.codec, self._codes[start:stop], out=out[start:stop])
                continue
            part = self._pointer[start : stop + 1]
            decode(self.codec, self._codes[part[0] : part[-1]], part - part[0], out=out[start:stop])
        if self._further is not None:
            coded, more = self._further
            for start in range(0, len(coded), _DECODE_ROWS):
                here = slice(start, start + _DECODE_ROWS)
                add_further(self.codec, more[here], coded[here], out)
        return out
