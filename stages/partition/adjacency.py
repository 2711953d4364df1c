"""The rows of A + A^T without ever holding it: both CSR arrays are read in order, merged a row at a
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Adjacency", "adjacency", "neighbours", "row_buffer", "tally"]


class Adjacency(NamedTuple):
    """`indptr` i8[N + 1], `indices` i4[E] and, of a directed graph, its transpose; columns sorted,
    read-only.

    A symmetric graph has empty `t_indptr` and `t_indices`.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    t_indptr: NDArray[np.int64]
    t_indices: NDArray[np.int32]


def adjacency(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    t_indptr: NDArray[np.int64] | None = None,
    t_indices: NDArray[np.int32] | None = None,
) -> Adjacency:
    """Read-only views of the arrays, nothing copied: stored and computed arrays then share one
    compiled kernel.
    """

    def view(values: NDArray[Any]) -> NDArray[Any]:
        out = values.view()
        out.flags.writeable = False
        return out

    none_ptr, none = np.empty(0, np.int64), np.empty(0, np.int32)
    return Adjacency(
        view(indptr),
        view(indices),
        view(none_ptr if t_indptr is None else t_indptr),
        view(none if t_indices is None else t_indices),
    )


@njit(cache=True)
def neighbours(graph: Adjacency, i: int, out: NDArray[np.int32]) -> int:
    """Write row `i` of the pattern of A + A^T into `out`, ascending, `i` itself left out; returns
    its length.
    """
    a, a_end = graph.indptr[i], graph.indptr[i + 1]
    b, b_end = 0, 0
    if len(graph.t_indptr) > 0:
        b, b_end = graph.t_indptr[i], graph.t_indptr[i + 1]
    length = 0
    while a < a_end or b < b_end:
        if b == b_end or (a < a_end and graph.indices[a] <= graph.t_indices[b]):
            j = graph.indices[a]
            if b < b_end and graph.t_indices[b] == j:
                b += 1
            a += 1
        else:
            j = graph.t_indices[b]
            b += 1
        if j != i:
            out[length] = j
            length += 1
    return length


@njit(cache=True)
def tally(
    owner: NDArray[np.int32],
    row: NDArray[np.int32],
    length: int,
    count: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> int:
    """Count the first `length` nodes of `row` by owner in `count`, zeros before, and list the
    owners in `seen`; returns their number.
    """
    owners = 0
    for k in range(length):
        p = owner[row[k]]
        if count[p] == 0:
            seen[owners] = p
            owners += 1
        count[p] += 1
    return owners


@njit(cache=True)
def _longest(graph: Adjacency) -> int:
    nodes, longest = len(graph.indptr) - 1, 0
    for i in range(nodes):
        length = graph.indptr[i + 1] - graph.indptr[i]
        if len(graph.t_indptr) > 0:
            length += graph.t_indptr[i + 1] - graph.t_indptr[i]
        longest = max(longest, min(length, nodes))
    return longest


def row_buffer(graph: Adjacency) -> NDArray[np.int32]:
    """Room for the longest row: i4[<= N]. O(N)."""
    return np.empty(_longest(graph), np.int32)
