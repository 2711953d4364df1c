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

__all__ = ["MORE", "StudentRows", "matrix_weights", "multiply_further"]

MORE = "more"
"""Array f4[N, hops D] of a student's artifact: columns behind the stored ones."""


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
    """Write M^(K+1) x, .. to `out`, f4[N, hops D], where the last D columns of `x` are M^K x.

    They are products of the rows as they are decoded: where a code loses something, so do these.
    Two arrays f4[N, D] are held; O(hops E D) time.
    """
    columns = int(products["own_columns"])
    weight = graph.array("weight") if graph.has("weight") else None
    matrix = Propagation(
        matrix_weights(products), graph.array("indptr"), graph.array("indices"), weight
    )

    def done(hop: int, product: NDArray[np.float32]) -> None:
        out[:, (hop - 1) * columns : hop * columns] = product

    matrix.hops(x[:, -columns:].copy(), hops, threads, done)


class StudentRows:
    """Rows by node id: those of the codes, and behind them the student's own columns.

    Parameters
    ----------
    taught : artifact of stage `student`. codes : the features it was taught on.
    """

    def __init__(self, taught: Reader, codes: Reader) -> None:
        self._stored = NodeRows(codes)
        self.num_nodes = self._stored.num_nodes
        self._more = taught.array(MORE) if taught.has(MORE) else None

    def of(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Rows f4[n, F] of nodes `ids`, i4|i8[n]: one read of each node's code, and one of its
        further columns.
        """
        stored = self._stored.of(ids)
        if self._more is None:
            return stored
        return np.concatenate([stored, self._more[ids]], axis=1)
