"""A member of an npz file is read front to back in bounded pieces; by its last item the zip's checksum was checked."""

from __future__ import annotations

from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["MemberStream", "read_header"]

_SKIP_BYTES = 1 << 20


class MemberStream:
    """Items of one member in stored order.

    Parameters
    ----------
    open_member : opens the member at its first byte.

    Attributes
    ----------
    shape, dtype, fortran : from its header; a column-major array is stored with its first axis fastest.

    Raises
    ------
    ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error
        The member is damaged or pickled, here and in `read`; `Members.stream` turns them into errors for users.
    """

    def __init__(self, open_member: Callable[[], IO[bytes]]) -> None:
        self._open = open_member
        self._file = open_member()
        self.shape, self.fortran, self.dtype = read_header(self._file)
        if self.dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
        self._at = 0
        self.size = prod(self.shape)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Items `start:stop` in stored order, as stored.

        Going on where the last call ended costs what is read; items between are read too; going back starts anew. A
        reader that goes from the first item to the last has had the whole member checked.
        """
        if start < self._at:
            self._file.close()
            self._file = self._open()
            read_header(self._file)
            self._at = 0
        skip = (start - self._at) * self.dtype.itemsize
        while skip > 0:
            skip -= len(self._some(min(skip, _SKIP_BYTES)))
        data = self._some((stop - start) * self.dtype.itemsize)
        self._at = stop
        return np.frombuffer(data, self.dtype)

    def _some(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise EOFError(f"expected {count} more bytes, found {len(data)}")
        return data


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether column-major, and dtype; `file` stands at the first item after it."""
    version = np.lib.format.read_magic(file)
    # Version 3 differs from 2 in the names of fields alone, which no array of numbers has.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return tuple(int(n) for n in shape), bool(fortran), dtype
