"""Rows as a student reads them: what is stored of every node, and hops beyond it that are the
student's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.node_rows import NodeRows
from stockpot.stages.pack.layers import Weights
from stockpot.stages.propagate.hops import Propagation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = [
    "MORE",
    "NEAR",
    "TOLD",
    "StudentRows",
    "matrix_weights",
    "mean_of_neighbours",
    "multiply_further",
]

MORE, NEAR, TOLD = "more", "near", "told"
"""Arrays of a student's artifact: f4[N, hops D], columns behind the stored ones; f4[N, C], behind
these, means of what the teacher says of neighbours; f4[N, C], what it says of the nodes."""


def matrix_weights(products: Mapping[str, Any]) -> Weights:
    """The matrix that stored columns were multiplied by, from what codes say of them."""
    adj, normalised = str(products["adj"]), products["adj"] == "norm"
    normalization = str(products["normalization"]) if normalised else "none"
    return Weights(adj, normalization, "none", bool(products["self_loops"]))


def multiply_further(
    x: NDArray[np.float32],
    hops: int,
    products: Mapping[str, Any],
    graph: Reader,
    threads: int,
    out: NDArray[np.float32],
) -> None:
    """Write M^(K+1) x, .. to `out`, f4[N, hops D], where the last D columns of `x` are M^K x; the
    next steps of PageRank where the columns are steps of it.

    They are products of the rows as they are decoded: where a code loses something, so do these.
    Two arrays f4[N, D] are held, three for PageRank; O(hops E D) time.
    """
    columns = int(products["own_columns"])
    weight = graph.array("weight") if graph.has("weight") else None
    matrix = Propagation(
        matrix_weights(products), graph.array("indptr"), graph.array("indices"), weight
    )

    def done(hop: int, product: NDArray[np.float32]) -> None:
        out[:, (hop - 1) * columns : hop * columns] = product

    alpha = float(products.get("alpha", 0.0))
    home = np.ascontiguousarray(x[:, :columns]) if alpha else None
    matrix.hops(x[:, -columns:].copy(), hops, threads, done, home, alpha)


def mean_of_neighbours(
    told: NDArray[np.float32], graph: Reader, threads: int, out: NDArray[np.float32]
) -> None:
    """Write the mean over each node's in-neighbours of their rows of `told`, f4[N, C], to `out`;
    zeros where it has none. O(E C).
    """
    matrix = Propagation(Weights("mean"), graph.array("indptr"), graph.array("indices"))
    matrix.times(told, out, threads)


class StudentRows:
    """Rows by node id: those of the codes, and behind them the student's own columns.

    Parameters
    ----------
    taught : artifact of stage `student`. codes : the features it was taught on.
    """

    def __init__(self, taught: Reader, codes: Reader) -> None:
        self._stored = NodeRows(codes)
        self.num_nodes = self._stored.num_nodes
        self._beside = [taught.array(name) for name in (MORE, NEAR) if taught.has(name)]

    def of(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Rows f4[n, F] of nodes `ids`, i4|i8[n]: one read of each node's code, and one of each
        kind of columns beside it.
        """
        stored = self._stored.of(ids)
        return np.concatenate([stored, *(part[ids] for part in self._beside)], axis=1)
