"""How many rows of features a cache holds, from what a recipe says."""

from __future__ import annotations

import math

from stockpot.stages.errors import BadInput
from stockpot.stages.units import bytes_of

__all__ = ["cache_rows"]

MEND = '--set order.cache=0.1, "10%" of the nodes, a number of rows, or bytes such as "2GB"'


def cache_rows(value: float | str, nodes: int, row_bytes: int) -> int:
    """Rows of `order.cache`: a share of all nodes up to 1 or "10%", a number of rows above 1, or
    bytes ("2GB").

    Never more than there are nodes.

    Parameters
    ----------
    row_bytes : of a row as it is held, decoded.

    Raises
    ------
    BadInput
        It is none of these.

    Examples
    --------
    >>> [cache_rows(v, 1000, 512) for v in (0.1, "10%", 100, "51.2 KB")]
    [100, 100, 100, 100]
    """
    rows: float | None = None
    if isinstance(value, str):
        text = value.strip()
        if text.endswith("%"):
            rows = _number(text[:-1], 100.0, nodes)
        elif (found := bytes_of(text)) is not None:
            rows = found // row_bytes
    elif 0 < value <= 1:
        rows = value * nodes
    elif value > 1 and value == int(value):
        rows = value
    if rows is None:
        raise BadInput(
            f"order.cache: expected a share of the nodes, rows or bytes, found {value!r}", fix=MEND
        )
    return min(nodes, math.floor(rows + 1e-9 * nodes))


def _number(text: str, most: float, nodes: int) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share / most * nodes if 0 < share <= most else None
