"""Where a record's features lie is a matter of bytes: beside its nodes, or once for all in the
artifact of codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stockpot.stages.stage import Facts

__all__ = ["gathers", "reason"]

FITS_BYTES = 1 << 30
"""Codes of a graph that any machine keeps in its page cache: gathered from there, no row is read
from disk twice."""
PAGE_BYTES = 4096


def gathers(asked: str, graph: Facts, records: Facts, codes: Facts) -> bool:
    """Whether records gather their features from the artifact of codes, by what the recipe asks or
    from facts alone.

    A node stands in several records. Packed beside it each time, its code makes a record one
    sequential read; that is worth its bytes until all copies together are larger than the plain
    fp32 rows of the graph, when the codec saves nothing any more. Codes that fit in no page cache
    are packed all the same: gathering reads a page for every row.
    """
    if asked != "auto":
        return asked == "gather"
    packed, once, plain = _sizes(graph, records, codes)
    return packed > plain and once <= FITS_BYTES


def reason(gather: bool, graph: Facts, records: Facts, codes: Facts) -> str:
    """Why, in one line of bytes."""
    packed, once, plain = _sizes(graph, records, codes)
    sizes = (
        f"{_mb(packed)} of codes in {records['rows']} rows, {_mb(once)} once, {_mb(plain)} as fp32"
    )
    if gather != gathers("auto", graph, records, codes):
        return f"{'gather' if gather else 'packed'}: features.layout says so; {sizes}"
    if gather:
        return f"gather: {sizes}; the copies would exceed the features they stand for"
    if packed <= plain:
        return f"packed: {sizes}; the copies are smaller than the features they stand for"
    row = max(PAGE_BYTES, once / max(1, int(graph["num_nodes"])))
    return (
        f"packed: {sizes}; gathering could read {_mb(int(records['rows'] * row))} of pages an epoch"
    )


def _sizes(graph: Facts, records: Facts, codes: Facts) -> tuple[int, int, int]:
    """Bytes of the codes of all rows of the records, of all nodes once, and of all nodes as
    fp32.
    """
    nodes, once = max(1, int(graph["num_nodes"])), int(codes["code_bytes"])
    return int(int(records["rows"]) * once / nodes), once, 4 * nodes * int(codes["num_features"])


def _mb(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.3g} GB"
