"""What reach says of a run: which sizes of sets were compared, and why one was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick
from stockpot.stages.show.html import count, table, text
from stockpot.stages.show.plain import table as plain_table
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View
    from stockpot.stages.stage import Facts

__all__ = ["REPORTING", "reach_table"]

_HEAD = ("nodes an output", "accuracy", "behind the best", "rows")
_SECTION = "Sets of inference"


def _cells(row: Mapping[str, Any]) -> list[str]:
    behind = f"{100 * row['behind']:.2f} ± {100 * row['error']:.2f}" if row["error"] else ""
    return [f"{100 * row['accuracy']:.2f} %", behind, f"{row['rows']:,}"]


def reach_table(facts: Facts) -> list[str]:
    """The table of what was compared as plain text, "*" what was taken; none where nothing was."""
    if not facts.get("table"):
        return []
    rows = [
        (f"{'*' if row['top_k'] == facts['top_k'] else ' '} {row['top_k']}", *_cells(row))
        for row in facts["table"]
    ]
    return [plain_table(_HEAD, rows, right=(1, 2, 3))]


def _summary(view: View) -> Mapping[str, Any]:
    facts = view.facts("reach")
    names = ("top_k", "reason", "table", "judged_on")
    return {"stages": {"reach": pick(facts, *names)}} if facts else {}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    judged = summary["stages"].get("reach") or {}
    if judged.get("table"):
        about = (
            "infer.top_k = auto: accuracy of the chosen model on validation outputs whose records "
            "hold so many nodes of each. The smallest size is taken that is not more than a "
            "standard error (paired) behind the best."
        )
        rows = [(str(row["top_k"]), *_cells(row)) for row in judged["table"]]
        marked = [row["top_k"] == judged["top_k"] for row in judged["table"]]
        yield Block(_SECTION, table(_HEAD, rows, about=about, marked=marked))
    if judged:
        yield Block(
            _SECTION,
            f"<p>Nodes kept for an output: {count(judged['top_k'])}; {text(judged['reason'])}. "
            f"Judged on {count(judged['judged_on'])} validation outputs.</p>",
        )


def _inspect(facts: Facts, advice: Facts) -> list[str]:
    return reach_table(facts)


REPORTING = Reporting(_summary, report=_report, inspect=_inspect)
