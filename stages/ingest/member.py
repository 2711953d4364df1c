"""A member of an npz file is read front to back in bounded pieces; by its last item the zip's
checksum was checked.

What a header declares is compared with the bytes that are there before anything is allocated.
"""

from __future__ import annotations

from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["MemberStream", "checked_header", "read_array", "read_header"]

_SKIP_BYTES = 1 << 20


class MemberStream:
    """Items of one member in stored order.

    Parameters
    ----------
    open_member : opens the member at its first byte.
    total_bytes : of the member, header included.

    Attributes
    ----------
    shape, dtype, fortran : from its header; a column-major array is stored with its first axis
        fastest.

    Raises
    ------
    ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error
        The member is damaged, pickled or not of the size that it declares, here and in `read`;
        `Members.stream` turns them into errors for users.
    """

    def __init__(self, open_member: Callable[[], IO[bytes]], total_bytes: int) -> None:
        self._open = open_member
        self._file = open_member()
        self.shape, self.fortran, self.dtype = checked_header(self._file, total_bytes)
        self._at = 0
        self.size = prod(self.shape)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Items `start:stop` in stored order, as stored.

        Going on where the last call ended costs what is read; items between are read too; going
        back starts anew. A reader that goes from the first item to the last has had the whole
        member checked.
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
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    return tuple(int(n) for n in shape), bool(fortran), dtype


def checked_header(
    file: IO[bytes], total_bytes: int
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """As `read_header`, of an array that is nothing but numbers or text and fills `total_bytes`
    with its header.

    Raises
    ------
    ValueError
        It holds pickled objects, or more or fewer bytes than its shape and dtype say.
    """
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    declared, there = prod(shape) * dtype.itemsize, total_bytes - file.tell()
    if min(shape, default=0) < 0 or declared != there:
        raise ValueError(
            f"its header declares shape {shape} of {dtype}, {declared:,} bytes, and there are "
            f"{there:,}"
        )
    return shape, fortran, dtype


def read_array(file: IO[bytes], total_bytes: int) -> NDArray[Any]:
    """The whole array, its declared size checked first; raises as `MemberStream`."""
    shape, fortran, dtype = checked_header(file, total_bytes)
    count = prod(shape) * dtype.itemsize
    data = bytearray(count)
    with memoryview(data) as view:
        at = 0
        while at < count:
            read = file.readinto(view[at : at + _SKIP_BYTES])  # type: ignore[attr-defined]
            if not read:
                raise EOFError(f"expected {count - at} more bytes, found none")
            at += read
    if file.read(1):  # reads to the end, where a zip's checksum is checked
        raise ValueError("it goes on after its last item")
    values = np.frombuffer(data, dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
