"""What hops says of a run: which numbers of hops were compared, what each gained, and why one was
taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick
from stockpot.stages.hops.hop_spending import MOST_COLUMNS
from stockpot.stages.judge.spending import JUDGED
from stockpot.stages.show.html import count, table, text
from stockpot.stages.show.plain import table as plain_table
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View
    from stockpot.stages.stage import Facts

__all__ = ["REPORTING", "hops_table"]

_HEAD = ("hops", "accuracy", "gains", "shown", "row-passes")
_SECTION = "Propagated features"


def _cells(row: Mapping[str, Any]) -> list[str]:
    gain = f"{100 * row['gain']:+.2f} ± {100 * row['error']:.2f}" if row["hops"] else ""
    shown = ("yes" if row["shown"] else "no") if row["hops"] else ""
    return [f"{100 * row['accuracy']:.2f} %", gain, shown, f"{row['row_passes']:,}"]


def hops_table(facts: Facts) -> list[str]:
    """The table of what was compared as plain text, "*" what was taken; none where nothing was."""
    if not facts.get("table"):
        return []
    rows = [
        (f"{'*' if row['hops'] == facts['hops'] else ' '} {row['hops']}", *_cells(row))
        for row in facts["table"]
    ]
    return [plain_table(_HEAD, rows, right=(1, 2, 4))]


def _summary(view: View) -> Mapping[str, Any]:
    facts = view.facts("hops")
    names = ("hops", "reason", "table", "judged_on", "trained_on", "row_passes", "model")
    return {"stages": {"hops": pick(facts, *names)}} if facts else {}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    judged = summary["stages"].get("hops") or {}
    if judged.get("table"):
        about = (
            "features.propagate = auto: accuracy on validation outputs of a sample after short "
            "trainings of the model on [x, Mx, .., M^K x] for each number of hops K, two for each "
            "from the same draws. A gain is shown where it is beyond two standard errors (paired)."
        )
        rows = [(str(row["hops"]), *_cells(row)) for row in judged["table"]]
        marked = [row["hops"] == judged["hops"] for row in judged["table"]]
        yield Block(_SECTION, table(_HEAD, rows, about=about, marked=marked))
    if judged:
        yield Block(
            _SECTION,
            f"<p>Hops taken: {count(judged['hops'])}; {text(judged['reason'])}. Judged by "
            f"{text(judged['model'])} on {count(judged['judged_on'])} nodes in "
            f"{count(judged['row_passes'])} row-passes.</p>",
        )


def _remarks(view: View) -> Iterator[str]:
    graph, model = view.facts("ingest"), view.values["train.model"]
    columns = graph.get("num_features") or 0
    if view.values["features.propagate"] != "auto" or not columns:
        return
    if columns > MOST_COLUMNS:
        yield (
            f"features.propagate auto: features of {columns:,} columns are not multiplied by the "
            f"graph, {MOST_COLUMNS:,} is the most; fix: --set features.reduce=128"
        )
    elif model not in JUDGED:
        yield (
            f"features.propagate auto: features are not multiplied by the graph: no judge runs "
            f"train.model '{model}', only {', '.join(JUDGED)}; fix: --set features.propagate=2, "
            f"or 0"
        )


def _inspect(facts: Facts, advice: Facts) -> list[str]:
    return hops_table(facts)


REPORTING = Reporting(_summary, report=_report, remarks=_remarks, inspect=_inspect)
