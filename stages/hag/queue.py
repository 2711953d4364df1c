"""A bucket queue of symbols by an upper bound that only falls: the largest bound in O(1), last in first out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.kernel import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["pop", "push"]


@njit(cache=True, nogil=True)
def push(head: NDArray[np.int32], below: NDArray[np.int32], bound: int, symbol: int) -> None:
    """Put a symbol that is in no bucket on top of bucket `bound`.

    Parameters
    ----------
    head : i4[largest bound + 1], the symbol on top of each bucket, -1 where it is empty.
    below : i4[symbols], the next one in its bucket.
    """
    below[symbol] = head[bound]
    head[bound] = symbol


@njit(cache=True, nogil=True)
def pop(head: NDArray[np.int32], below: NDArray[np.int32], bound: int) -> int:
    """Take the symbol on top of bucket `bound`; -1 where it is empty."""
    symbol = head[bound]
    if symbol >= 0:
        head[bound] = below[symbol]
    return symbol
