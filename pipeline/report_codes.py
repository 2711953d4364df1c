"""The rate-distortion table of feature codes as people read it: bytes, errors, accuracy, and which one was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.report_html import count, number, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["RATE_HEAD", "code_section", "rate_cells"]

RATE_HEAD = (
    "bytes a row",
    "table bytes",
    "all bytes",
    "x smaller",
    "NMSE",
    "after 1",
    "2",
    "3 means",
    "ridge loses",
    "may cost",
)


def rate_cells(candidate: Mapping[str, Any]) -> list[str]:
    """A row of the table without its name; accuracies in points."""
    c = candidate
    errors = [f"{value:.4g}" for value in (c["nmse"], *c["nmse_by_depth"])]
    lost = f"{100 * c['drop']:.2f} ± {100 * c['drop_error']:.2f}"
    sizes = [f"{c[name]:,}" for name in ("row_bytes", "table_bytes", "total_bytes")]
    return [*sizes, f"{c['compression_ratio']:.1f}", *errors, lost, f"{100 * c['drop_bound']:.2f}"]


def code_section(summary: Mapping[str, Any]) -> str:
    """What was compared and why the codec was taken; nothing where nothing was measured."""
    book = summary["stages"].get("codebook") or {}
    found = []
    if book.get("rate"):
        rows: list[Sequence[str]] = [(text(c["codec"]), *map(text, rate_cells(c))) for c in book["rate"]]
        about = (
            "Candidates of features.codec = auto, each family from its most bytes until one fails. NMSE: error energy "
            "over centred energy, of rows and after 1, 2 and 3 mean aggregations. Points of validation accuracy that "
            "ridge regression on aggregated features loses, its standard error; may cost: two errors more, or twice "
            "that, whichever is more."
        )
        marked = [c["codec"] == book["codec"] for c in book["rate"]]
        found.append(table(("codec", *RATE_HEAD), rows, about=about, marked=marked))
        found.append(
            f"<p>Chosen: {text(book['codec'])}; {text(book['reason'])}. Judged on {count(book['judged_on'])} nodes.</p>"
        )
    if book.get("sensitivity"):
        scales = ", ".join(number(value, 3) for value in book["sensitivity"])
        found.append(
            f"<p>Uncorrelated errors shrink by 1, 2 and 3 mean aggregations to {scales} of what features shrink to: "
            "the smaller, the coarser a code the graph forgives.</p>"
        )
    return "".join(found)
