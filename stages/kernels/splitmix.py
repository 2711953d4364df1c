"""The finaliser of splitmix64 (Steele, Lea, Flood 2014): of any 64 bits 64 that look random, the
same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GOLDEN", "MASK", "mixed64"]

GOLDEN = 0x9E3779B97F4A7C15
"""What the state of splitmix64 grows by, modulo 2^64."""
MASK = 2**64 - 1

Bits = TypeVar("Bits", int, "NDArray[np.uint64]")


def mixed64(z: Bits) -> Bits:
    """Of a Python integer below 2^64, or of u8[...].

    >>> hex(mixed64(GOLDEN))
    '0xe220a8397b1dcdaf'
    """
    bits: Any = z
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    found: Bits = bits ^ (bits >> 31)
    return found
