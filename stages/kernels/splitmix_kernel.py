"""The same finaliser in kernels, as `stockpot.stages.kernels.splitmix` has it without numba."""

from __future__ import annotations

from numba import uint64

from stockpot.stages.kernels.compiled import njit

__all__ = ["mix64"]


@njit(cache=True, nogil=True, inline="always")
def mix64(z: int) -> int:
    """u8 of u8."""
    z = uint64((z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    z = uint64((z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB))
    return z ^ (z >> uint64(31))
