"""A file that is replaced is the old one or the new one, whole, whenever it is read."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its place at the end, and goes where that fails.

    Parameters
    ----------
    synced : what was written is on the disk before it takes the place: a power cut leaves one of
        the two. Off for what may be lost.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        if synced:
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
