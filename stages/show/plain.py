"""Tables and sizes as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.show.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["human_bytes", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns as plain text; those in `right` are aligned to the right."""
    lines = [[printable(cell, one_line=True) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    texts = []
    for line in lines:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def human_bytes(count: float, *, up: bool = False) -> str:
    """Bytes in words, decimal units; `up` never rounds down.

    >>> human_bytes(2_340_000_000)
    '2.3 GB'
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{(count + size / 20 - 1 if up else count) / size:.1f} {unit}"
    return f"{int(count)} B"
