"""What codeloss says of a run: what the code costs the model that ships, and whether that is too
much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import TOLERANCE, Block, pick
from stockpot.stages.judge.reporting import CODES
from stockpot.stages.show.html import percent
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    """Null where the code loses nothing, or nothing was chosen yet."""
    figures = pick(view.facts("codeloss"), "accuracy_drop", "fp32_valid_accuracy")
    return {"stages": {"quantize": figures}} if "quantize" in view.built else {}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    codes = summary["stages"].get("quantize") or {}
    if codes.get("accuracy_drop") is not None:
        yield Block(
            CODES,
            f"<p>After training: the chosen model loses {100 * codes['accuracy_drop']:.2f} points "
            f"of validation "
            f"accuracy on coded features ({percent(codes['fp32_valid_accuracy'])} on fp32 "
            f"rows).</p>",
        )


def _remarks(view: View) -> Iterator[str]:
    """The chosen model is worth less on coded features than was allowed."""
    facts, allowed = view.facts("codeloss"), view.values["features.max_accuracy_drop"]
    drop = facts.get("accuracy_drop")
    if drop is not None and drop > allowed + TOLERANCE:
        yield (
            f"features as {facts['codec']} cost the chosen model {100 * drop:.2f} points of "
            f"validation accuracy "
            f"({100 * facts['valid_accuracy']:.2f} % on them, "
            f"{100 * facts['fp32_valid_accuracy']:.2f} % on fp32), "
            f"features.max_accuracy_drop is {100 * allowed:.2f}; fix: --set features.codec=fp32"
        )


REPORTING = Reporting(_summary, report=_report, remarks=_remarks)
