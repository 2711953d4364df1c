"""What ingest says of a run: the data set in figures, and what of it was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import pick
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    facts, built = view.facts("ingest"), view.built.get("ingest")
    names = ("num_nodes", "num_edges_stored", "num_features", "num_classes")
    left_out = (built.note("left_out") or []) if built else []
    return {
        "dataset": {**pick(facts, *names), "num_edges": _message_edges(view), "left_out": left_out}
    }


def _message_edges(view: View) -> int | None:
    """Entries of the message passing matrix: stored ones, and one self-loop a node where the recipe
    adds them.
    """
    facts = view.facts("ingest")
    if not facts:
        return None
    return int(facts["nnz"]) + (int(facts["num_nodes"]) if view.values["graph.self_loops"] else 0)


REPORTING = Reporting(_summary)
