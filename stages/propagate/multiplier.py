"""Which matrix features are multiplied by, and how many columns at a time; described without
numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["columns_at_once", "matrix_of"]

_SLAB_BYTES = 1 << 30
"""Of the columns that are in memory at a time, in one of two arrays; never fewer than a cache line
of a row, as long as that is `_MOST_BYTES` at most."""
_MOST_BYTES = 4 << 30
_LINE = 16
"""Columns of float32 in a cache line: the least that reading a neighbour's row costs."""


def columns_at_once(nodes: int, columns: int) -> int:
    """Columns of a task: all that `_SLAB_BYTES` hold, in whole cache lines where there are several
    tasks; by counts alone, as it is part of the key.
    """
    row = 4 * max(1, nodes)
    if columns * row <= _SLAB_BYTES:
        return max(1, columns)
    lines = _SLAB_BYTES // row // _LINE * _LINE
    return min(columns, lines or max(1, min(_LINE, _MOST_BYTES // row)))


def matrix_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`adj`, `normalization` and `self_loops` of the matrix that features are multiplied by, and
    `alpha` where each product goes back to the features with that probability.

    At "auto" a model that reads normalised values gets its own matrix, as logistic regression on
    its powers does (arXiv 1902.07153); all others, and a model of one's own that reads a pattern,
    the mean over neighbours.

    Raises
    ------
    BadInput
        PageRank of a matrix that is not normalised: its iteration has no limit.
    """
    by, normalization = str(recipe["features.propagate_by"]), str(recipe["graph.normalization"])
    if by == "auto":
        by = "norm" if recipe["train.model"] in ("gcn", "sgc") else "mean"
    if by == "mean":
        return {"adj": "mean", "normalization": "none", "self_loops": False}
    found = {
        "adj": "norm",
        "normalization": normalization,
        "self_loops": bool(recipe["graph.self_loops"]),
    }
    if by != "ppr":
        return found
    if normalization == "none":
        raise BadInput(
            "graph.normalization: features.propagate_by = ppr is PageRank of a normalised matrix: "
            "expected sym or rw, found none",
            fix="--set graph.normalization=sym",
        )
    return {**found, "alpha": float(recipe["batches.alpha"])}
