"""What quantize says of a run: the codec, its bytes and its error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.show.html import count, number, percent, text
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    if "quantize" not in view.built:
        return {}
    facts = view.facts("quantize")
    names = ("table_bytes", "compression_ratio", "nmse", "nmse_aggregated", "tier")
    figures = {
        "codec": facts.get("codec"),
        "bytes_per_row": facts.get("row_bytes"),
        **pick(facts, *names),
    }
    return {"stages": {"quantize": figures}}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    codes = summary["stages"].get("quantize") or {}
    if codes.get("codec") is None:
        return
    width = (
        "rows of varying length"
        if codes["bytes_per_row"] is None
        else f"{count(codes['bytes_per_row'])} bytes a row"
    )
    error = "" if codes.get("nmse") is None else f", normalised squared error {codes['nmse']:.3g}"
    ratio = codes.get("compression_ratio")
    smaller = "" if ratio is None else f", compression ratio {number(ratio)} against fp32"
    yield sentence(f"Features: {text(codes['codec'])}, {width}{smaller}{error}.")
    if (tier := codes.get("tier")) is not None:
        yield sentence(
            f"The {count(tier['rows'])} most exposed nodes have further stages "
            f"({text(tier['codec'])}, "
            f"{count(tier['row_bytes'])} bytes more), which leave {percent(tier['error_left'])} of "
            f"their squared error."
        )


REPORTING = Reporting(_summary, report=_report)
