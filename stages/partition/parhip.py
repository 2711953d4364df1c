"""A graph as a ParHIP binary file, the only compact format KaMinPar loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["write_parhip"]

_UNWEIGHTED = 0b11  # neither edge nor node weights follow
_NODE_IDS_32 = 0b1000
_SLICE = 1 << 22  # entries converted together


def write_parhip(path: Path, indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> None:
    """Write the pattern with 64-bit offsets and 32-bit ids: 8 bytes a node, 4 an edge,
    little-endian.

    Header u8[3]: flags, N, E; then the offset *in bytes from the start of the file* of each row and
    of the end; then the columns. Layout: KaHIP user guide, section "Binary Graph Format"; the flags
    for 32-bit ids are KaMinPar's.

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E] CSR, symmetric, no self-loops
    """
    first = 8 * (3 + len(indptr))
    with open(path, "wb") as file:
        np.array([_UNWEIGHTED | _NODE_IDS_32, len(indptr) - 1, len(indices)], "<u8").tofile(file)
        for start in range(0, len(indptr), _SLICE):
            (first + 4 * indptr[start : start + _SLICE]).astype("<u8").tofile(file)
        for start in range(0, len(indices), _SLICE):
            indices[start : start + _SLICE].astype("<u4").tofile(file)
