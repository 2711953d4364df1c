"""Sizes as users write them."""

from __future__ import annotations

import re

__all__ = ["MOST_BYTES", "bytes_of"]

MOST_BYTES = 2**60

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def bytes_of(text: str) -> int | None:
    """Bytes of "2GB", "1.5 GiB" or "4096"; None for anything else, 0 and more than an exabyte
    (2**60) included.

    >>> bytes_of("2GB")
    2000000000
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        return None
    size = float(match[1]) * _UNITS[match[2].upper()]  # infinite where there are hundreds of digits
    return int(size) if 1 <= size <= MOST_BYTES else None
