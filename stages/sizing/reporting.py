"""What sizing says of a run: the sizes it found, what they hold, and where none holds enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.show.html import count, percent, text
from stockpot.stages.sizing.record_size import MOST_ROWS, STEP_BYTES
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    if "sizing" not in view.built:
        return {}
    facts = view.facts("sizing")
    names = ("top_k", "outputs", "mix", "held", "records", "rows", "enough")
    found = {split: pick(one, *names) for split, one in facts["splits"].items()}
    return {"stages": {"sizing": {"mass": facts["mass"], "splits": found}}}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    if (sizing := summary["stages"].get("sizing")) is not None:
        yield sentence(_sentence(sizing))


def _sentence(sizing: Mapping[str, Any]) -> str:
    """What was measured where the recipe leaves sizes to "auto"."""
    found = [
        f"{text(split)} {count(one['records'])} of at most {count(one['outputs'])} outputs, "
        + (
            "each of the whole graph"
            if one["top_k"] == "all"
            else f"{count(one['top_k'])} neighbours kept"
        )
        + f", which hold {' and '.join(percent(share) for share in one['held'][:2])}"
        for split, one in sizing["splits"].items()
    ]
    return (
        "Sizes of records were measured on the graph: "
        + "; ".join(found)
        + " of the neighbours of outputs and of their neighbours. Rows are "
        + ("corrected for the rest." if sizing["mass"] == "row" else "not corrected for the rest.")
    )


def _remarks(view: View) -> Iterator[str]:
    """No size that was measured holds enough of the neighbours at a bearable cost."""
    splits: Mapping[str, Any] = view.facts("sizing").get("splits") or {}
    lacking = {name: one["held"] for name, one in splits.items() if not one["enough"]}
    chosen = [name for name in ("batches.top_k", "batches.outputs") if view.values[name] == "auto"]
    if lacking and chosen:
        shares = "; ".join(
            f"{name} {100 * h[0]:.0f} and {100 * h[1]:.0f} %" for name, h in lacking.items()
        )
        yield (
            f"{' and '.join(chosen)} auto: no size of records holds enough of the neighbours of "
            f"their outputs, and of "
            f"those ones' neighbours, within {MOST_ROWS:g} rows a node and {STEP_BYTES >> 20} MiB "
            f"a step ({shares} are "
            "held); fix: larger ones by hand, e.g. --set batches.top_k=64 --set batches.outputs="
            f"{2 * max(one['outputs'] for one in splits.values())}, or features in fewer columns "
            f"(features.reduce)"
        )


REPORTING = Reporting(_summary, report=_report, remarks=_remarks)
