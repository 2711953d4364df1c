"""What partition says of a run: its parts, and what they cut."""

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
    if "partition" not in view.built:
        return {}
    return {
        "stages": {
            "partition": pick(view.facts("partition"), "parts", "edge_cut", "balance", "method")
        }
    }


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    partition = summary["stages"].get("partition") or {}
    if partition.get("edge_cut") is not None:
        yield sentence(
            f"Partition: {count(partition['parts'])} parts by {text(partition['method'])}, edge "
            f"cut "
            f"{percent(partition['edge_cut'])} of the edges, balance "
            f"{number(partition['balance'])} "
            "(largest part / mean part)."
        )


def _remarks(view: View) -> Iterator[str]:
    if (
        view.values["partition.method"] == "auto"
        and view.facts("partition").get("method") == "stream"
    ):
        yield (
            "partition.method auto: stream, which cuts more edges, since KaMinPar is projected to "
            "need more than 64 "
            "GiB here; fix: --set partition.method=kaminpar, on a machine that has them"
        )


REPORTING = Reporting(_summary, report=_report, remarks=_remarks)
