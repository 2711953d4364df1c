"""Files that follow each other in memory: an array of several chunks is one array without being
read.

Address space for all of them is reserved first (no memory behind it), then every file is mapped
over its place in it. Linux only; POSIX mmap(2), MAP_FIXED.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["ALIGN_BYTES", "can_join", "join"]

ALIGN_BYTES = 1 << 16
"""The largest page of a machine we know: files that are a multiple of it can follow each other on
every one."""

_PROT_NONE, _MAP_FIXED = 0, 0x10
_FAILED = ctypes.c_void_p(-1).value


def can_join(length: int) -> bool:
    """Whether files of which `length` bytes are to be mapped can follow each other here."""
    return sys.platform == "linux" and length % mmap.PAGESIZE == 0


def join(paths: Sequence[Path], length: int, *, writable: bool = False) -> NDArray[np.uint8]:
    """Map the first `length` bytes of each file, one after another.

    Parameters
    ----------
    length : a multiple of the page size where there are several files; each file has at least so
        many bytes.
    writable : what is written reaches the files.

    Returns
    -------
    u1[len(paths) * length]; unmapped with the last array that looks at it.

    Raises
    ------
    OSError
        A file cannot be opened or mapped.
    """
    span = _Span(len(paths) * length)
    for number, path in enumerate(paths):
        span.place(path, number * length, length, writable)
    return span.array(writable)


class _Span:
    """Reserved address space; numpy keeps it alive as the base of the arrays on it."""

    def __init__(self, size: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        )
        self._libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._size = size
        self._at: int | None = None
        self._at = self._map(None, size, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, "")

    def _map(
        self, at: int | None, size: int, protection: int, flags: int, fd: int, name: str
    ) -> int:
        found: int | None = self._libc.mmap(at, size, protection, flags, fd, 0)
        if found is None or found == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)
        return found

    def place(self, path: Path, offset: int, length: int, writable: bool) -> None:
        assert self._at is not None
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            self._map(
                self._at + offset, length, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, str(path)
            )
        finally:
            os.close(fd)

    def array(self, writable: bool) -> NDArray[np.uint8]:
        self.__array_interface__ = {
            "version": 3,
            "shape": (self._size,),
            "typestr": "|u1",
            "data": (self._at, not writable),
        }
        return np.asarray(self)

    def __del__(self) -> None:
        if self._at is not None:
            self._libc.munmap(self._at, self._size)
