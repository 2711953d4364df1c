"""What split says of a run: nodes in each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import pick
from stockpot.stages.node import SPLITS
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    return {
        "dataset": {"splits": pick(view.facts("split"), *SPLITS) if "split" in view.built else None}
    }


REPORTING = Reporting(_summary)
