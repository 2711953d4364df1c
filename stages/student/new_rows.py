"""Rows of nodes that no stored row knows of, from their own features and the stored rows of their
neighbours: exact for one hop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.pack.layers import scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.pack.layers import Weights

__all__ = ["joined", "new_rows"]


def new_rows(
    how: Weights,
    hops: int,
    x: NDArray[np.float32],
    indptr: NDArray[np.int64],
    stored: NDArray[np.float32],
    deg: NDArray[np.float64],
    weight: NDArray[np.float32] | None = None,
    alpha: float = 0.0,
) -> NDArray[np.float32]:
    """Rows [x, Mx, .., M^K x] of new nodes, each as if it alone were added to the graph.

    The column of hop h takes the columns of hop h - 1 of the neighbours, which were stored before
    the node was there. Those of hop 0 are features, so hop 1 is exact. From hop 2 on a walk from
    the node that comes back to it is missing, and so is what the node changes of its neighbours'
    degrees as their own neighbours see them: exact only where edges lead into new nodes alone.

    Parameters
    ----------
    how : the matrix M. hops : K.
    x : f4[n, D], features of the new nodes, as the graph stores them.
    indptr : i8[n + 1], where each node's neighbours begin in `stored`.
    stored : f4[e, (K + 1) D], rows of the neighbours, one for each edge.
    deg : f8[e], in-degrees of these neighbours without self-loops, sums of weights where edges have
        some, with the edge back to the new node where there is one.
    weight : f4[e] of the edges, for "norm"; None: 1 each.
    alpha : above 0: the columns are steps of personalised PageRank, which return to x with it.

    Returns
    -------
    f4[n, (K + 1) D], summed in float64. O(e K D).
    """
    import scipy.sparse as sp

    count, columns = x.shape
    if weight is None or how.adj != "norm":
        weight = None
        own = np.diff(indptr).astype(np.float64)
    else:
        own = np.add.reduceat(np.append(weight, 0.0).astype(np.float64), indptr[:-1])
        own[np.diff(indptr) == 0] = 0.0
    left, right = scales(how, count, indptr, np.concatenate([own, deg]), weight)
    values = right[count:].astype(np.float64)
    if weight is not None:
        values *= weight
    edges = sp.csr_array((values, np.arange(len(stored)), indptr), shape=(count, len(stored)))
    out = np.empty((count, (hops + 1) * columns), np.float32)
    out[:, :columns] = x
    for hop in range(1, hops + 1):
        before = slice((hop - 1) * columns, hop * columns)
        total = edges @ stored[:, before].astype(np.float64)
        if how.loops:
            total += right[:count, None].astype(np.float64) * out[:, before]
        out[:, hop * columns : (hop + 1) * columns] = (1 - alpha) * (
            left[:, None] * total
        ) + alpha * out[:, :columns]
    return out


def joined(
    neighbours: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indptr i8[n + 1], ids i8[e]) of lists of neighbours."""
    indptr = np.cumsum([0, *map(len, neighbours)], dtype=np.int64)
    return indptr, np.concatenate([np.zeros(0, np.int64), *neighbours])
