"""What loadplan says of a run: rows that a cache saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.show.html import count, number
from stockpot.stages.show.plain import human_bytes
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    if "loadplan" not in view.built:
        return {}
    names = ("cache", "cache_bytes", "largest_record", "epochs", "rows", "read")
    return {"stages": {"loadplan": pick(view.facts("loadplan"), *names)}}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    if (loads := summary["stages"].get("loadplan")) is not None:
        rows, read = sum(loads["rows"]), sum(loads["read"])
        yield sentence(
            f"Load plan: a cache of {count(loads['cache'])} rows "
            f"({human_bytes(loads['cache_bytes'])}); an epoch "
            f"reads {count(read // loads['epochs'])} rows of features for the "
            f"{count(rows // loads['epochs'])} in its "
            f"records, {number(rows / max(1, read))} x fewer."
        )


REPORTING = Reporting(_summary, report=_report)
