"""How many rows are handled together; described without numpy."""

__all__ = ["BLOCK_ROWS", "CHUNK_BYTES"]

CHUNK_BYTES = 8 << 20
"""Dense values handled at a time; results do not depend on it."""
BLOCK_ROWS = 1024
"""Chunks are whole blocks, counted from row 0: sums that end with a block are the same for any
chunk."""
