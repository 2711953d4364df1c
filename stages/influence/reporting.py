"""What influence says of a run: the records of each split in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import pick
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.built import View
    from stockpot.stages.stage import Facts

__all__ = ["REPORTING"]


SAMPLED = ("nodes_by_layer", "edges_by_layer", "overlap", "lru_misses")
"""Figures that sampled records alone have."""


def splits(view: View, stage: str) -> dict[str, Any]:
    """Figures of the splits of stage "influence", "sample" or "pack", for `summary.json`: of
    records and of packs.
    """
    found = {}
    for split in ("train", "valid", "test", "infer"):
        if f"{stage}:{split}" in view.built:
            found[split] = _figures(view.facts(f"{stage}:{split}"), view.facts(f"pack:{split}"))
    return {"stages": {stage: {"splits": found}}} if found else {}


def _figures(facts: Facts, inside: Facts) -> dict[str, Any]:
    return {
        **pick(facts, "records", "rows"),
        "edges": inside.get("edges"),
        **pick(facts, "replication", "outputs", "captured"),
        "rounds": facts.get("rounds", 1)
        if facts
        else None,  # older artifacts, and those of one round, do not say
        **pick(inside, "dropped_nodes", "bytes"),
        **(pick(facts, *SAMPLED) if "sampling" in facts else {}),
    }


def _summary(view: View) -> Mapping[str, Any]:
    return splits(view, "influence")


REPORTING = Reporting(_summary)
