"""What order says of a run: how far apart, or how alike, consecutive records are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.show.html import number, percent, text
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    if "order" not in view.built:
        return {}
    facts = view.facts("order")
    more = {name: facts[name] for name in ("chain", "overlap", "window", "mix") if name in facts}
    return {"stages": {"order": {**pick(facts, "method", "tour_length", "random_length"), **more}}}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    order = summary["stages"].get("order") or {}
    if order.get("tour_length") is not None:
        yield sentence(
            f"Order of the training records: {text(order['method'])}; the label distances along it "
            f"sum to "
            f"{number(order['tour_length'])}, in a random order to "
            f"{number(order['random_length'])}."
        )
    if order.get("overlap") is not None:
        yield sentence(
            f"Order of the training records: {text(order['method'])}; {percent(order['overlap'])} "
            f"of a record's rows "
            "stand in the one before it in the chain."
        )


REPORTING = Reporting(_summary, report=_report)
