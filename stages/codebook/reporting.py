"""What codebook says of a run: how coarse a code the graph forgives, and why this one was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick
from stockpot.stages.judge.reporting import CODES, judged, rate_table
from stockpot.stages.show.html import number
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View
    from stockpot.stages.stage import Facts

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    facts = view.facts("codebook")
    figures = {**pick(facts, "codec", "sensitivity", "nmse_by_depth"), **judged(view)}
    return {"stages": {"codebook": figures}} if "codebook" in view.built else {}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    book = summary["stages"].get("codebook") or {}
    if book.get("sensitivity"):
        scales = ", ".join(number(value, 3) for value in book["sensitivity"])
        yield Block(
            CODES,
            f"<p>Uncorrelated errors shrink by 1, 2 and 3 mean aggregations to {scales} of what "
            f"features shrink to: "
            "the smaller, the coarser a code the graph forgives.</p>",
        )


def _inspect(facts: Facts, judged: Facts) -> list[str]:
    return [*rate_table(facts), *rate_table(judged)]


REPORTING = Reporting(_summary, report=_report, inspect=_inspect)
