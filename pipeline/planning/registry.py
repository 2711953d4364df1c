"""Every stage there is. A new stage is a new folder and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.stages.stage import Stage

__all__ = ["SECTIONS", "STAGES"]

STAGES: dict[str, Stage[Any]] = {
    name: import_module(f"stockpot.stages.{name}").STAGE
    for name in (
        "ingest",
        "split",
        "hops",
        "propagate",
        "judge",
        "codebook",
        "quantize",
        "partition",
        "sizing",
        "influence",
        "sample",
        "order",
        "hag",
        "pack",
        "loadplan",
        "exchange",
        "calibrate",
        "warmup",
        "train",
        "soup",
        "reach",
        "student",
        "infer",
        "codeloss",
    )
}
"""Stages by name, each after those whose nodes it makes its own of. Advice may come from a later
one: `reach` sizes records of inference by the trained model."""

SECTIONS: dict[str, type] = {
    section: keys for stage in STAGES.values() for section, keys in stage.planning.sections.items()
}
"""Sections of a recipe that belong to stages."""
