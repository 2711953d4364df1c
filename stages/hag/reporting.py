"""What hag says of a run: sums that records share, and why where they share none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.hag.planning import enabled, unshared
from stockpot.stages.show.html import count, number, text
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View
    from stockpot.stages.stage import Facts

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    if "hag" in view.built:
        return {"stages": {"hag": _figures(view)}}
    why = unshared(view.values)
    if why and enabled(view.values["hag.enabled"]) != "never" and "pack:train" in view.built:
        return {"stages": {"hag": {"use": False, "why": f"no product to share: {why}"}}}
    return {}


def _shared(view: View) -> list[Facts]:
    """What the packs of all splits say of the HAGs of their records."""
    return [b.facts["hag"] for b in view.of("pack") if "hag" in b.facts]


def _figures(view: View) -> dict[str, Any]:
    """Of the records that have a HAG in all splits: sums shared; 1 and none where it was decided
    against.
    """
    names = ("records", "reads", "plain_reads", "adds", "plain_adds")
    total = {name: sum(int(f[name]) for f in _shared(view)) for name in names}
    return {
        "adds_ratio": total["plain_adds"] / total["adds"] if total["adds"] else 1.0,
        "reads_ratio": total["plain_reads"] / total["reads"] if total["reads"] else 1.0,
        "records_used": total["records"],
        **pick(view.facts("hag"), "use", "why", "predicted_gain", "possible_gain"),
    }


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    if (hag := summary["stages"].get("hag")) is not None and hag.get("why"):
        saved = "none; "
        if used := hag.get("records_used"):
            saved = (
                f"{count(used)} records read {number(hag['reads_ratio'])} x fewer rows and add "
                f"{number(hag['adds_ratio'])} x fewer; "
            )
        yield sentence(f"Shared partial sums: {saved}{text(hag['why'])}.")


def _remarks(view: View) -> Iterator[str]:
    """Records were found to gain, but no record could be given a HAG: weights do not factor."""
    packed = _shared(view)
    asked = enabled(view.values["hag.enabled"]) == "auto" and view.facts("hag").get("use")
    if asked and packed and not any(int(facts["records"]) for facts in packed):
        yield (
            "hag.enabled auto: records were predicted to gain from shared sums, and none has them: "
            "their edge weights "
            "are no product of a factor a row and one a column; fix: --set hag.enabled=never saves "
            "the search"
        )


REPORTING = Reporting(_summary, report=_report, remarks=_remarks)
