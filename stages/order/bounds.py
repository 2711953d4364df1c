"""What bounds the memory of an order."""

from __future__ import annotations

__all__ = ["ENTRIES"]

ENTRIES = 1 << 24
"""Most rows in which overlap is counted at once."""
