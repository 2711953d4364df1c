"""What a code costs in accuracy, seen by ridge regression on aggregated features: fitted on train, judged on valid.

Exact and decoded features are fitted in the same way and judged on the same nodes, so that most of the noise of a
validation accuracy cancels in their difference; what is left is stated beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NETWORK", "RIDGE", "Drop", "Z", "correct", "drop_of"]

RIDGE = 1e-3
"""Ridge in units of the mean variance of a column, the same for all features that are compared."""
Z = 2.0
"""Standard errors beyond the drop that was seen: a confidence of 97.7 %, one-sided."""
NETWORK = 2.0
"""What a network loses at most where ridge regression loses 1: measured, see "Rate control" in stages/README.md."""
_ROWS = 8192


@dataclass(frozen=True)
class Drop:
    """Accuracy of exact features less that of decoded ones, as shares of the validation nodes.

    Attributes
    ----------
    mean, error : of the paired difference, and its standard error.
    bound : no less than what the proxy lost with `Z` standard errors, and `NETWORK` times what it lost.
    """

    mean: float
    error: float

    @property
    def bound(self) -> float:
        return max(self.mean + Z * self.error, NETWORK * self.mean)


def drop_of(exact: NDArray[np.bool_], decoded: NDArray[np.bool_]) -> Drop:
    """Paired difference of two classifiers' hits on the same nodes.

    Half a node is added to either kind of disagreement (Agresti and Min 2005): ten nodes that agree prove little.

    >>> round(drop_of(np.ones(98, bool), np.ones(98, bool)).error, 3)
    0.01
    """
    n = len(exact)
    lost, won = int((exact & ~decoded).sum()), int((decoded & ~exact).sum())
    mean = (lost - won) / (n + 2)
    spread = (lost + won + 1) / (n + 2) - mean * mean
    return Drop((lost - won) / max(1, n), math.sqrt(spread / (n + 2)))


def correct(
    features: NDArray[np.float32],
    y: NDArray[np.integer[Any]],
    num_train: int,
    num_classes: int,
) -> NDArray[np.bool_]:
    """Hits on validation of one-against-all ridge regression on all depths' columns side by side.

    Parameters
    ----------
    features : f4[layers + 1, outputs, d], of train outputs first, as `propagated` makes them.
    y : class of each output; -1, unlabelled, is left out of both parts.

    Returns
    -------
    b1[labelled validation outputs]. O(train (layers d)^2 + (layers d)^3).
    """
    depths, _, width = features.shape
    columns = depths * width
    labelled = np.flatnonzero(y >= 0)
    train, valid = labelled[labelled < num_train], labelled[labelled >= num_train]
    mean = features[:, train].mean(axis=1, dtype=np.float64).astype(np.float32).reshape(-1)
    gram, cross = np.zeros((columns, columns)), np.zeros((columns, num_classes))
    counts = np.bincount(y[train], minlength=num_classes)
    for rows in _chunks(train):
        block = _block(features, rows) - mean
        gram += block.T @ block
        target = np.zeros((len(rows), num_classes), np.float32)
        target[np.arange(len(rows)), y[rows]] = 1.0
        cross += block.T @ target
    scale = np.trace(gram) / columns
    if scale <= 0:
        return np.asarray(y[valid] == counts.argmax())
    gram[np.diag_indices(columns)] += RIDGE * scale
    weights = np.linalg.solve(gram, cross).astype(np.float32)
    start = (counts / max(1, len(train))).astype(np.float32)
    hits = [((_block(features, rows) - mean) @ weights + start).argmax(axis=1) == y[rows] for rows in _chunks(valid)]
    return np.concatenate(hits) if hits else np.zeros(0, bool)


def _chunks(rows: NDArray[np.integer[Any]]) -> list[NDArray[np.integer[Any]]]:
    return [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]


def _block(features: NDArray[np.float32], rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """f4[rows, layers * d]."""
    return np.concatenate(list(features[:, rows]), axis=1)
