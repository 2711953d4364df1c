"""The rate-distortion table of feature codes as people read it: bytes, errors, accuracy, and which one was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.report.html import count, number, percent, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["RATE_HEAD", "code_section", "rate_cells"]

RATE_HEAD = (
    "bytes a row",
    "table bytes",
    "all bytes",
    "x smaller",
    "NMSE",
    "after a mean",
    "loses",
    "may cost",
    "pairs",
    "allowed",
)


def rate_cells(candidate: Mapping[str, Any]) -> list[str]:
    """A row of the table without its name; accuracies in points."""
    c = candidate
    errors = [f"{value:.4g}" for value in (c["nmse"], c["nmse_aggregated"])]
    sizes = [f"{c[name]:,}" for name in ("row_bytes", "table_bytes", "total_bytes")]
    said = ["", "", "", "not judged"]
    if c["drop"] is not None:
        lost = f"{100 * c['drop']:.2f} ± {100 * c['drop_error']:.2f}"
        said = [lost, f"{100 * c['drop_bound']:.2f}", str(c["pairs"]), "yes" if c["allowed"] else "no"]
    return [*sizes, f"{c['compression_ratio']:.1f}", *errors, *said]


def code_section(summary: Mapping[str, Any]) -> str:
    """What was compared and why the codec was taken; nothing where nothing was measured."""
    book, judge = (summary["stages"].get(name) or {} for name in ("codebook", "judge"))
    codes = summary["stages"].get("quantize") or {}
    found = []
    if judge.get("rate"):
        rows: list[Sequence[str]] = [(text(c["codec"]), *map(text, rate_cells(c))) for c in judge["rate"]]
        about = (
            "Candidates of features.codec = auto, from the most bytes until one fails; of equal bytes the one of least "
            "error is judged. NMSE: error energy over centred energy, of rows and after the mean of their neighbours "
            "in a record. Points of validation accuracy that short trainings of the model lose on the code against "
            "fp32, from the same start, on records of a sample of the graph; may cost: two standard errors more."
        )
        marked = [c["codec"] == judge["codec"] for c in judge["rate"]]
        found.append(table(("codec", *RATE_HEAD), rows, about=about, marked=marked))
    if judge:
        share = judge.get("row_pass_share")
        of = "" if share is None else f", {100 * share:.1f} % of those of the training"
        found.append(
            f"<p>Chosen: {text(judge['codec'])}; {text(judge['reason'])}. Judged by {text(judge['model'])} on "
            f"{count(judge['judged_on'])} nodes in {count(judge['row_passes'])} row-passes{of}.</p>"
        )
    if codes.get("accuracy_drop") is not None:
        found.append(
            f"<p>After training: the chosen model loses {100 * codes['accuracy_drop']:.2f} points of validation "
            f"accuracy on coded features ({percent(codes['fp32_valid_accuracy'])} on fp32 rows).</p>"
        )
    if book.get("sensitivity"):
        scales = ", ".join(number(value, 3) for value in book["sensitivity"])
        found.append(
            f"<p>Uncorrelated errors shrink by 1, 2 and 3 mean aggregations to {scales} of what features shrink to: "
            "the smaller, the coarser a code the graph forgives.</p>"
        )
    return "".join(found)
