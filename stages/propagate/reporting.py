"""What propagate says of a run: how often the features were multiplied, and by what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.show.html import count
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]

_MATRIX = {
    "mean": "the mean over in-neighbours",
    "norm": "the normalised matrix",
}


def _summary(view: View) -> Mapping[str, Any]:
    if "propagate" not in view.built:
        return {}
    return {
        "stages": {
            "propagate": pick(view.facts("propagate"), "hops", "adj", "num_features", "alpha")
        }
    }


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    if (found := summary["stages"].get("propagate")) and found.get("hops"):
        hops = found["hops"]
        if alpha := found.get("alpha"):
            yield sentence(
                f"Features went {count(hops)} step{'s' if hops > 1 else ''} of personalised "
                f"PageRank by the normalised matrix, with a return of {alpha:g} to the node's own: "
                f"the model reads {count(found['num_features'])} columns, the graph's own first."
            )
            return
        yield sentence(
            f"Features were multiplied {'once' if hops == 1 else f'{count(hops)} times'} by "
            f"{_MATRIX[found['adj']]}: the model reads {count(found['num_features'])} columns, the "
            f"graph's own first."
        )


def _remarks(view: View) -> Iterator[str]:
    """A matrix was named for products that nobody asked for."""
    named, hops = view.values["features.propagate_by"], view.values["features.propagate"]
    if named != "auto" and hops == 0:
        yield (
            f"features.propagate_by: {named} has no effect, as features.propagate is 0; fix: "
            f"--set features.propagate=2"
        )


REPORTING = Reporting(_summary, report=_report, remarks=_remarks)
