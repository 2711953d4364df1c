"""What exchange says of a run: how many ranks train together, and why as they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.show.html import count, text
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    trained = view.built.get("train:0")
    if trained is None or not view.of("exchange"):
        return {}
    return {
        "stages": {"exchange": pick(trained.facts["shared"], "ranks", "mode", "why", "predicted")}
    }


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    if (shared := summary["stages"].get("exchange")) is not None and shared.get("why"):
        why = shared["why"][0].upper() + shared["why"][1:]
        yield sentence(f"{count(shared['ranks'])} ranks train each model together. {text(why)}.")


REPORTING = Reporting(_summary, report=_report)
