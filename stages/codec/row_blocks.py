"""How many rows are handled together; described without numpy."""

from __future__ import annotations

from stockpot.stages.stage import Shard

__all__ = ["BLOCK_ROWS", "CHUNK_BYTES", "SHARD_ROWS", "row_shards"]

SHARD_ROWS = 1 << 20
"""Rows of a shard of features, whole blocks."""

CHUNK_BYTES = 8 << 20
"""Dense values handled at a time; results do not depend on it."""
BLOCK_ROWS = 1024
"""Chunks are whole blocks, counted from row 0: sums that end with a block are the same for any
chunk."""


def row_shards(rows: int) -> list[Shard]:
    """Shards of so many rows, named by their numbers."""
    return [
        Shard(f"rows-{number:05d}", start, min(start + SHARD_ROWS, rows))
        for number, start in enumerate(range(0, rows, SHARD_ROWS))
    ]
