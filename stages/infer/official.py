"""The figure of an `ogb:` data set is that of OGB's own evaluator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.ingest.sources.ogb_package import evaluator

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["official_data", "official_score"]


def official_data(recipe: Mapping[str, Any]) -> str:
    """The data set whose official evaluator scores this run, "" where none does: another source, or
    other outputs.
    """
    kind, _, rest = str(recipe["dataset.source"]).partition(":")
    return rest.partition("@")[0] if kind == "ogb" and recipe["infer.split"] == "test" else ""


def official_score(
    name: str, y: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]
) -> dict[str, Any] | None:
    """What ogb's evaluator says of predictions.

    Parameters
    ----------
    name : as ogb calls the data set.
    y : class of each output, -1 where unlabelled: these are not scored.
    predicted : class of each output as predicted.

    Returns
    -------
    `data`, `metric` as ogb calls it, and its `value`; None where no output has a label.
    """
    labelled = y >= 0
    if not labelled.any():
        return None
    judge = evaluator(name)
    asked = {"y_true": y[labelled].reshape(-1, 1), "y_pred": predicted[labelled].reshape(-1, 1)}
    metric = str(judge.eval_metric)
    return {"data": name, "metric": metric, "value": float(judge.eval(asked)[metric])}
