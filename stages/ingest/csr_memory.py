"""The memory building a CSR takes, from counts alone: what it is planned with is what it keeps
to.
"""

from __future__ import annotations

__all__ = [
    "BLOCK_BYTES",
    "BLOCK_EDGES",
    "BLOCK_VALUES",
    "RANGES",
    "entry_bytes",
    "least_bytes",
    "most_bytes",
    "sort_bytes",
]

BLOCK_EDGES = 1 << 18
BLOCK_BYTES = 96
"""What an edge of a block takes: 28 as read (two ids of 8 bytes, a weight of 8), 20 as given, 48
dealt to ranges."""
BLOCK_VALUES = 1 << 20
"""Feature values of a block, stored ones where sparse; such a block takes at most 48 bytes a
value."""
RANGES = 128
"""Most ranges of rows of about equal size, so that a block falls into few pieces."""


def entry_bytes(weighted: bool) -> int:
    """What an entry takes in its place."""
    return 8 if weighted else 4


def sort_bytes(weighted: bool) -> int:
    """What an entry of the row being sorted takes beside its place: a copy, and an order with its
    workspace.
    """
    return 24 if weighted else 8


def most_bytes(num_edges: int, undirected: bool, weighted: bool) -> int:
    """Memory above which `build_csr` gains nothing: the edges as given, all entries, and a long row
    being sorted.
    """
    entries = num_edges * (2 if undirected else 1)
    kept = num_edges * (12 if weighted else 8)
    return BLOCK_BYTES * BLOCK_EDGES + kept + (entry_bytes(weighted) + 1) * entries


def least_bytes(num_edges: int, undirected: bool, weighted: bool) -> int:
    """Least memory `build_csr` can be held to, beside 40 bytes a node: a block, and a range of
    rows.
    """
    entries = num_edges * (2 if undirected else 1)
    return BLOCK_BYTES * BLOCK_EDGES + 2 * entry_bytes(weighted) * -(-entries // RANGES)
