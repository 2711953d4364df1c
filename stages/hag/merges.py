"""What a search found: merges in the order of their gain, and what every distinct row is after all of them.

Any number of the first merges makes a HAG (`stages.hag.shape`), so one search holds the whole curve over the capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Merges"]


@dataclass(frozen=True, eq=False)
class Merges:
    """Symbols are what rows hold: first `num_symbols` entries of the CSR, then merge i as num_symbols + i.

    Attributes
    ----------
    num_rows, num_nodes, crc, plain_reads, plain_adds : as of `Hag`.
    column, weight : i4[num_symbols], i4 or None, the column and the multiplicity that each symbol below the merges is.
    same : i4[num_rows], the distinct row that each row is.
    pairs : i4[M, 2], the two symbols of each merge, both before it.
    counts : i4[M], rows counted for each merge, non-increasing.
    applied : i4[M], distinct rows it was applied to; at least `counts`, more where rows above a limit were not counted.
    ptr, symbols : i8[D + 1], i4, CSR of the distinct rows after all merges.
    """

    num_rows: int
    num_nodes: int
    crc: int
    plain_reads: int
    plain_adds: int
    column: NDArray[np.int32]
    weight: NDArray[np.int32] | None
    same: NDArray[np.int32]
    pairs: NDArray[np.int32]
    counts: NDArray[np.int32]
    applied: NDArray[np.int32]
    ptr: NDArray[np.int64]
    symbols: NDArray[np.int32]

    @property
    def num_symbols(self) -> int:
        """Symbols that are columns with a multiplicity."""
        return len(self.column)

    def twins(self) -> NDArray[np.int32]:
        """Rows equal to each distinct row."""
        return np.bincount(self.same, minlength=len(self.ptr) - 1).astype(np.int32)

    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Additions and reads left with the first K aggregation nodes, for every K from 0: i8[nodes + 1] each.

        Rows that stand several times come first, the largest gain before, then the merges; each node is counted as it
        was found, before nodes of a single consumer dissolve, which changes no number of additions.
        """
        times, entries = self.twins().astype(np.int64), self.entries()
        twin = np.sort(((times - 1) * (entries - 1))[(times > 1) & (entries > 1)])[::-1]
        merge = self.applied.astype(np.int64) - 1
        saved = np.r_[0, np.cumsum(np.r_[twin, merge])]
        return self.plain_adds - saved, self.plain_reads - saved + np.arange(len(saved))

    def entries(self) -> NDArray[np.int64]:
        """Entries of each distinct row before any merge, i8[D]."""
        return _entries(self.pairs, self.num_symbols, self.ptr, self.symbols)


@njit(cache=True, nogil=True)
def _entries(
    pairs: NDArray[np.int32], first: int, ptr: NDArray[np.int64], symbols: NDArray[np.int32]
) -> NDArray[np.int64]:
    width = np.ones(first + len(pairs), np.int64)
    for i in range(len(pairs)):
        width[first + i] = width[pairs[i, 0]] + width[pairs[i, 1]]
    out = np.zeros(len(ptr) - 1, np.int64)
    for r in range(len(out)):
        for i in range(ptr[r], ptr[r + 1]):
            out[r] += width[symbols[i]]
    return out
