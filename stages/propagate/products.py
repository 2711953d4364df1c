"""Products of some columns of a graph's features, as they are computed: no hop is held longer than
the next one needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.errors import BadInput
from stockpot.stages.pack.layers import Weights
from stockpot.stages.propagate.hops import Propagation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = ["Multiplied", "multiply"]

_CHECKED_ROWS = 65_536


class Multiplied(Protocol):
    """What is multiplied by, and how often; see `stockpot.stages.propagate.stage.Params`."""

    @property
    def hops(self) -> int: ...
    @property
    def adj(self) -> str: ...
    @property
    def normalization(self) -> str: ...
    @property
    def self_loops(self) -> bool: ...


def multiply(
    params: Multiplied,
    graph: Reader,
    start: int,
    stop: int,
    threads: int,
    done: Callable[[int, NDArray[np.float32]], None],
    alpha: float = 0.0,
) -> None:
    """Call `done(h, M^h x)` for each hop h, x f4[N, stop - start] the columns from `start` on; with
    `alpha` above 0 `done(h, Z_h)`, Z_h = (1 - alpha) M Z_(h-1) + alpha x from Z_0 = x.

    What `done` is given is overwritten by the next hop. Two arrays of its size are held, three with
    `alpha`; O(hops E columns) time.

    Raises
    ------
    BadInput
        A feature is not finite, or a product is beyond float32.
    """
    features = Features.from_reader(graph)
    x = np.empty((features.num_rows, stop - start), np.float32)
    for first, block in features.chunks():
        features.check(block, first)
        x[first : first + len(block)] = block[:, start:stop]
    weights = Weights(params.adj, params.normalization, "none", params.self_loops)
    edge_weight = graph.array("weight") if graph.has("weight") else None
    matrix = Propagation(weights, graph.array("indptr"), graph.array("indices"), edge_weight)

    def checked(hop: int, product: NDArray[np.float32]) -> None:
        _check(product, hop, start)
        done(hop, product)

    matrix.hops(x, params.hops, threads, checked, x.copy() if alpha else None, alpha)


def _check(product: NDArray[np.float32], hop: int, column: int) -> None:
    """Refuse sums that are beyond float32, by row and column."""
    for first in range(0, len(product), _CHECKED_ROWS):
        block = product[first : first + _CHECKED_ROWS]
        if np.isfinite(block).all():
            continue
        row, at = divmod(int(np.flatnonzero(~np.isfinite(block).reshape(-1))[0]), block.shape[1])
        raise BadInput(
            f"features.propagate: expected products within float32, found {block[row, at]} "
            f"after hop {hop} at node {first + row}, column {column + at}",
            fix="scale the features, or --set features.propagate=0",
        )
