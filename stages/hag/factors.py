"""Edge weights of the form left[destination] * right[source], or an edge that contradicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["csr_of", "factors"]

TOLERANCE = 1e-5
"""Relative; weights are mostly products rounded to float32."""


def csr_of(
    edge_index: NDArray[Any], num_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """CSR of the edges (row = destination, columns sorted, repeats kept) and, i8[E], the edge of
    each entry.

    Raises
    ------
    BadInput
        It is not (2, E), or a node id is outside the graph.
    """
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise BadInput(f"edge_index: expected shape (2, E), found {tuple(edge_index.shape)}")
    source, target = edge_index
    bad = np.flatnonzero((edge_index < 0).any(0) | (edge_index >= num_nodes).any(0))
    if bad.size:
        k = int(bad[0])
        raise BadInput(f"edge {k} is {source[k]} -> {target[k]}: expected nodes 0..{num_nodes - 1}")
    order = np.lexsort((source, target))
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(np.bincount(target, minlength=num_nodes), out=indptr[1:])
    return indptr, source[order].astype(np.int32), order


@njit(cache=True, nogil=True)
def _spread(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    t_indptr: NDArray[np.int64],
    t_rows: NDArray[np.int32],
    t_values: NDArray[np.float64],
    tolerance: float,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
) -> int:
    """Give every connected row its left and every column its right factor; the first entry that
    contradicts, or -1.

    A row's first weights fix what is free: each connected part of the bipartite graph has one free
    scale.
    """
    rows, cols = left.size, right.size
    stack = np.empty(rows + cols, np.int64)
    for root in range(rows):
        if left[root] != 0 or indptr[root] == indptr[root + 1]:
            continue
        left[root] = 1
        stack[0], height = root, 1
        while height:
            height -= 1
            node = stack[height]
            if node < rows:
                for k in range(indptr[node], indptr[node + 1]):
                    c = indices[k]
                    if right[c] == 0 and values[k] != 0:
                        right[c] = values[k] / left[node]
                        stack[height] = rows + c
                        height += 1
            else:
                for k in range(t_indptr[node - rows], t_indptr[node - rows + 1]):
                    i = t_rows[k]
                    if left[i] == 0 and t_values[k] != 0:
                        left[i] = t_values[k] / right[node - rows]
                        stack[height] = i
                        height += 1
    for i in range(rows):
        for k in range(indptr[i], indptr[i + 1]):
            if not abs(left[i] * right[indices[k]] - values[k]) <= tolerance * abs(values[k]):
                return k
    return -1


def factors(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(left f8[N], right f8[N]) with left[row] * right[column] equal to every weight. O(E).

    Parameters
    ----------
    values : f8[E], in CSR order. Scales are free in every connected part: where all weights of a
        part are right's alone, left is 1 there.

    Raises
    ------
    BadInput
        Weights do not factor (attention, distances, general weights), or one is 0, infinite or not
        a number.
    """
    import scipy.sparse as sp

    n = indptr.size - 1
    row = np.repeat(np.arange(n), np.diff(indptr))
    bad = np.flatnonzero(~np.isfinite(values) | (values == 0))
    if bad.size:
        k = int(bad[0])
        raise BadInput(
            f"edge {indices[k]} -> {row[k]}: expected a finite weight other than 0, found "
            f"{values[k]:g}",
            fix="leave such edges out",
        )
    turned = (
        sp.csr_matrix((np.arange(1, values.size + 1), indices, indptr), (n, n)).tocsc(copy=True)
        if n
        else None
    )
    places = np.zeros(0, np.int64) if turned is None else turned.data - 1
    t_indptr = np.zeros(1, np.int64) if turned is None else turned.indptr.astype(np.int64)
    left, right = np.zeros(n), np.zeros(n)
    k = _spread(
        indptr,
        indices,
        values,
        t_indptr,
        row[places].astype(np.int32),
        values[places],
        TOLERANCE,
        left,
        right,
    )
    if k >= 0:
        raise BadInput(
            f"edge {indices[k]} -> {row[k]}: its weight {values[k]:g} is not left[{row[k]}] * "
            f"right[{indices[k]}] "
            f"= {left[row[k]] * right[indices[k]]:g} that other edges give",
            fix="aggregate them without a HAG: only weights of the form left[target] * "
            "right[source] share sums",
        )
    left[left == 0] = 1
    right[right == 0] = 1
    return left, right
