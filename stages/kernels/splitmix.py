"""The finaliser of splitmix64 (Steele, Lea, Flood 2014): of any 64 bits 64 that look random, the
same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from numba import uint64

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GOLDEN", "MASK", "mix64", "mixed64"]

GOLDEN = 0x9E3779B97F4A7C15
"""What the state of splitmix64 grows by, modulo 2^64."""
MASK = 2**64 - 1

Bits = TypeVar("Bits", int, "NDArray[np.uint64]")


@njit(cache=True, nogil=True, inline="always")
def mix64(z: int) -> int:
    """In kernels: u8 of u8."""
    z = uint64((z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    z = uint64((z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB))
    return z ^ (z >> uint64(31))


def mixed64(z: Bits) -> Bits:
    """Outside of kernels: of a Python integer below 2^64, or of u8[...].

    >>> hex(mixed64(GOLDEN))
    '0xe220a8397b1dcdaf'
    """
    bits: Any = z
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    found: Bits = bits ^ (bits >> 31)
    return found
