"""The random walk whose personalized PageRank is the influence: the same matrix for kernels, tests
and documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.ingest.csr import row_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Walk", "walk"]


@dataclass(frozen=True)
class Walk:
    """Per-node constants of the push, for one alpha and eps.

    Attributes
    ----------
    degree : f8[N], weight of the edges leaving a node in the walk (its CSR row), self-loop
        included.
    spread : f8[N], share of a pushed residual that each unit of edge weight receives.
    settle : f8[N], share of a pushed residual that stays as estimate.
    threshold : f8[N], residual from which a node is pushed: alpha * eps * degree.
    """

    degree: NDArray[np.float64]
    spread: NDArray[np.float64]
    settle: NDArray[np.float64]
    threshold: NDArray[np.float64]


def walk(
    indptr: NDArray[np.int64],
    weight: NDArray[np.float32] | None,
    *,
    self_loops: bool,
    alpha: float,
    eps: float,
) -> Walk:
    """Constants of the walk P = D^-1 (A + I), or P = D^-1 A without self-loops.

    Row u of A holds the in-neighbours of u, where messages to u come from; the walk goes from u
    along its row. A node whose row weighs nothing keeps the walk where it is, whether self-loops
    are asked for or not, so its personalized PageRank is itself. Self-loops weigh 1, as
    torch_geometric adds them. Without self-loops, edge weights are scaled to mean 1, which leaves P
    as it is and gives `eps` the same meaning at any scale.

    A push over a self-loop of probability q returns q of the residual to the node itself at once;
    pushing until nothing returns sums to the factor 1 / (1 - (1 - alpha) q), used here in closed
    form.

    Parameters
    ----------
    indptr : i8[N + 1]
    weight : f4[E] or None, not negative
    self_loops : whether A + I is walked
    alpha, eps : teleport probability and residual bound, both inside (0, 1)

    Returns
    -------
    Walk
    """
    counts = np.diff(indptr).astype(np.float64)
    degree = counts if weight is None else row_sums(indptr, weight)
    scale = 1.0
    if weight is not None and not self_loops and degree.sum() > 0:
        scale = float(len(weight) / degree.sum())
        degree = degree * scale
    loop = np.full(len(counts), 1.0 if self_loops else 0.0)
    loop[degree + loop <= 0] = 1.0
    degree = degree + loop
    settle = 1.0 / (1.0 - (1.0 - alpha) * loop / degree)
    return Walk(
        degree=degree,
        spread=(1.0 - alpha) * settle * scale / degree,
        settle=settle,
        threshold=alpha * eps * degree,
    )
