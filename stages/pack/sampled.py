"""Message passing matrices of sampled records: what the formula of all neighbours is, estimated
from those sampled.

The sum over a row's neighbours becomes deg_i times their mean weighted by 1 / p (Hájek), the
diagonal stays as it is; with every neighbour sampled each value is that of
`stockpot.stages.pack.layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.pack.layers import Matrix, Weights, scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Layer

__all__ = ["deep_enough", "sampled_matrices", "sampled_matrix"]


def sampled_matrices(
    how: Weights,
    depth: int,
    num_sampled_nodes: Sequence[int] | NDArray[np.integer[Any]],
    layers: Sequence[Layer],
    deg: NDArray[Any],
    *,
    nested: bool,
) -> list[Matrix]:
    """One matrix a layer of the model, the first applied first.

    Parameters
    ----------
    how : values; its `mass` says nothing here.
    depth : layers of the model, at most those sampled.
    num_sampled_nodes : nodes per hop, the outputs first.
    layers : sampled edges, the outputs' first.
    deg : as of `sampled_matrix`.
    nested : all layers are prefixes of the outermost: so are their matrices then.

    Raises
    ------
    BadInput
        The model is deeper than the sample.
    """
    deep_enough(len(layers), depth)
    reach = np.cumsum(np.asarray(num_sampled_nodes, np.int64))
    if nested:
        outer = sampled_matrix(how, layers[depth - 1], deg[: reach[depth]])
        return [outer] + [
            outer.head(int(reach[h]), int(reach[h + 1])) for h in range(depth - 2, -1, -1)
        ]
    return [sampled_matrix(how, layers[h], deg[: reach[h + 1]]) for h in range(depth - 1, -1, -1)]


def deep_enough(sampled: int, depth: int) -> None:
    """Refuse a model of more layers than were sampled."""
    if depth > sampled:
        raise BadInput(
            f"a model of {depth} layers on records sampled for {sampled}: expected at most "
            f"{sampled}",
            fix=f"--set train.layers={sampled}, or a fanout for every layer in batches.fanouts",
        )


def sampled_matrix(how: Weights, layer: Layer, deg: NDArray[Any]) -> Matrix:
    """The matrix of one layer. O(rows + edges).

    Parameters
    ----------
    deg : i4 or f4[cols], whole-graph in-degree without loops; of weighted "norm" the sum of the
        weights.
    """
    rows, nnz = layer.indptr.size - 1, layer.indices.size
    values: NDArray[Any] = np.ones(nnz, np.float32)
    if how.adj in ("norm", "mean") and layer.edge_w is not None:
        values = layer.edge_w
    if how.adj == "norm" and layer.weight is not None:
        values = values * layer.weight
    exact = Weights(how.adj, how.normalization, "none", how.self_loops)
    if how.adj == "mean":
        left, right = np.ones(rows, np.float32), np.ones(deg.size, np.float32)
        whole: NDArray[np.float64] = np.ones(rows)
    else:
        left, right = scales(exact, rows, layer.indptr, deg)
        whole = np.asarray(deg[:rows], np.float64)
    size = nnz + rows * how.loops
    out = Matrix(
        (rows, deg.size),
        np.empty(rows + 1, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.float32),
    )
    plain = how.adj in ("plain", "plain+loops")
    _fill(
        frozen(layer.indptr),
        frozen(layer.indices),
        frozen(values),
        left,
        right,
        whole,
        plain,
        how.loops,
        out.indptr,
        out.indices,
        out.values,
    )
    return out


@njit(cache=True, nogil=True)
def _fill(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    whole: NDArray[np.float64],
    plain: bool,
    loops: bool,
    out_indptr: NDArray[np.int32],
    out_indices: NDArray[np.int32],
    out_values: NDArray[np.float32],
) -> None:
    """Row i: left_i right_j values_ij whole_i / sum of the row's values; 1 where `plain`."""
    end = 0
    out_indptr[0] = 0
    for i in range(left.size):
        total = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            total += values[k]
        share = left[i] if plain or total == 0.0 else left[i] * whole[i] / total
        waiting = loops  # the diagonal, until a larger column comes
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            if waiting and j > i:
                out_indices[end] = i
                out_values[end] = left[i] * right[i]
                end += 1
                waiting = False
            out_indices[end] = j
            out_values[end] = share * right[j] * values[k]
            end += 1
        if waiting:
            out_indices[end] = i
            out_values[end] = left[i] * right[i]
            end += 1
        out_indptr[i + 1] = end
