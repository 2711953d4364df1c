"""Which codes are judged, from the most bytes to the fewest; described without numpy.

Residual codes are not among them: they take long to train and to encode, and more rows than a trial
has.
"""

from __future__ import annotations

from stockpot.stages.codec.codec_names import parse

__all__ = ["ladder", "sized"]

LEVELS = (4, 8, 16, 32, 64, 128)
"""Times smaller than fp32."""
_LEAST_ROWS = 4096
"""Nodes from which tables of 256 entries are trained."""
_LEAST_ROTATED = 16  # times smaller: above, rotating gains little and takes long
_MOST_ROTATED = 256  # columns: a rotation takes the cube of them, twenty times
_MOST_PARTS = 512  # of product codes: each is a k-means of its own


def ladder(num_nodes: int, num_features: int, most_bytes: int) -> tuple[tuple[str, ...], ...]:
    """Codes by level, those of about equal bytes together, levels from the most bytes to the
    fewest.

    Only codes that with their tables take fewer than `most_bytes` for all nodes, and than the level
    before; levels without any are left out.

    >>> ladder(10**6, 128, 10**9)[:4]
    (('sq8',), ('sq4', 'pq64'), ('sq2', 'pq32', 'opq32'), ('sq1', 'pq16', 'opq16'))
    >>> ladder(10**6, 8415, 4 * 8415 * 10**6)
    (('sq8',), ('sq4',), ('sq2',), ('sq1',), ('pq262',))
    """
    levels = []
    for smaller in LEVELS:
        names, units = [], 4 * num_features // smaller
        if smaller <= 32:
            names.append(f"sq{32 // smaller}")
        if num_nodes >= _LEAST_ROWS and smaller > LEVELS[0] and units > 0:
            if units <= _MOST_PARTS:
                names.append(f"pq{units}")
            if smaller >= _LEAST_ROTATED and units > 1 and num_features <= _MOST_ROTATED:
                names.append(f"opq{units}")
        bytes_of = {name: sized(name, num_nodes, num_features) for name in names}
        if kept := tuple(name for name in names if bytes_of[name] < most_bytes):
            levels.append(kept)
            most_bytes = min(bytes_of[name] for name in kept)
    return tuple(levels)


def sized(name: str, num_nodes: int, num_features: int) -> int:
    """Bytes of all rows of a code, tables at their most included."""
    kind = parse(name)
    return num_nodes * kind.row_bytes(num_features) + kind.table_bytes(num_features)
