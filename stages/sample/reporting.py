"""What sample says of a run: the records of each split in figures, and an order that breaks their
dependence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.influence.reporting import splits
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]


def _summary(view: View) -> Mapping[str, Any]:
    return splits(view, "sample")


def _remarks(view: View) -> Iterator[str]:
    """Batches that depend on their neighbours pay only where these follow each other."""
    sampling = view.facts("sample:train").get("sampling") or {}
    kappa, order = sampling.get("kappa", 1), view.facts("order")
    method, window = order.get("method"), int(order.get("window", 0))
    if kappa in (1, None, "inf") or method is None or (method == "overlap" and window != 1):
        return
    asked = f"order.method = {method!r}" + (" with order.window = 1" if method == "overlap" else "")
    cache = ' --set order.cache="10%"' if view.values["order.cache"] == 0 else ""
    yield (
        f"batches.kappa = {kappa} makes consecutive batches share rows, and {asked} deals them "
        f"apart: nothing is "
        f"shared; fix: --set order.method=overlap --set "
        f"order.window={max(2, min(int(kappa), 64))}{cache}, or "
        "--set batches.kappa=1"
    )


REPORTING = Reporting(_summary, remarks=_remarks)
