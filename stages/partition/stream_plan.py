"""How far the streaming partitioner divides a graph: from counts alone, so that its memory is known
before it runs.
"""

from __future__ import annotations

__all__ = ["stream_plan"]

_REGIONS = 8  # at least, so that METIS never sees more than a quarter of the edges
_REGION_ENTRIES = 1 << 23
_LEAST_ENTRIES = 1 << 14


def stream_plan(entries: int) -> tuple[int, int]:
    """Regions, and the most entries METIS is given at a time, from the entries of A + A^T.

    Regions are a power of two from 8 and hold 8.4 million entries or fewer on average; METIS is
    given twice the mean.

    >>> stream_plan(2_315_598), stream_plan(3_200_000_000)
    ((8, 578899), (512, 12500000))
    """
    regions = _REGIONS
    while entries > regions * _REGION_ENTRIES:
        regions *= 2
    return regions, max(2 * entries // regions, _LEAST_ENTRIES)
