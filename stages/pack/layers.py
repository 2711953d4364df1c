"""Message passing matrices of a record or a whole graph: one formula, trimmed to what a layer
needs, exact transposes.

The matrix of layer l (l = L applied first, 1 last) has the rows of hops <= l - 1 and the columns of
hops <= l: all in-record neighbours of a row lie within the next hop, so trimming drops no edge of a
row it keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csr import frozen, row_sums
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "ADJ",
    "MASS",
    "NORMALIZATION",
    "SEQUENCE",
    "Matrix",
    "Weights",
    "adjacency",
    "scales",
    "transposes",
    "trimmed",
]

SEQUENCE = "sequence"
ADJ = ("plain", "plain+loops", "norm", "mean")
NORMALIZATION = ("sym", "rw", "none")
MASS = ("none", "row")
INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Weights:
    """How the values of a matrix follow from degrees.

    Attributes
    ----------
    adj : "plain", 0/1 pattern; "sequence", the same, to be read in order
        (`stockpot.stages.hag.sequence`); "plain+loops", with the diagonal; "norm", a_i b_j w_ij;
        "mean", row i over its in-record neighbours, edge weights ignored as SAGE does, empty rows
        stay zero.
    normalization : of "norm". sym: s_i s_j with s = (deg + loop)^-1/2, in-degrees on both sides;
        rw: 1 / (deg_i + loop); none: 1.
    mass : of "norm". row: row i times (deg_i + loop) / (degree inside + loop).
    self_loops : of "norm": whether the diagonal is there.
    """

    adj: str = "plain"
    normalization: str = "sym"
    mass: str = "none"
    self_loops: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (
            ("adj", (*ADJ, SEQUENCE)),
            ("normalization", NORMALIZATION),
            ("mass", MASS),
        ):
            if getattr(self, name) not in allowed:
                raise BadInput(
                    f"{name}: expected {' | '.join(allowed)}, found {getattr(self, name)}"
                )

    @property
    def loops(self) -> bool:
        """Whether the matrix has a diagonal."""
        return self.adj == "plain+loops" or (self.adj == "norm" and self.self_loops)

    @property
    def symmetric(self) -> bool:
        """Whether A_ij == A_ji bit by bit, for an undirected graph without edge weights."""
        if self.adj == "norm":
            return self.normalization != "rw" and self.mass == "none"
        return self.adj != "mean"


@dataclass(frozen=True)
class Matrix:
    """CSR matrix in numpy; i4 pointers and ids where they fit, else i8.

    Attributes
    ----------
    shape : (rows, cols).
    indptr, indices, values : i4|i8[rows + 1], i4|i8[nnz] sorted inside a row, f4[nnz].
    """

    shape: tuple[int, int]
    indptr: NDArray[np.integer[Any]]
    indices: NDArray[np.integer[Any]]
    values: NDArray[np.float32]

    def head(self, rows: int, cols: int) -> Matrix:
        """The first rows, whose columns must all be below `cols`; views, O(1)."""
        nnz = int(self.indptr[rows])
        return Matrix((rows, cols), self.indptr[: rows + 1], self.indices[:nnz], self.values[:nnz])

    def narrowed(self, rows: int, cols: int) -> Matrix:
        """The first rows without their entries from column `cols` on: the transpose of `head(cols,
        rows)` where the first columns of this matrix are symmetric. One pass over those rows; views
        where nothing is left out.
        """
        if cols == self.shape[1]:
            return self.head(rows, cols)
        nnz = int(self.indptr[rows])
        indptr = np.empty(rows + 1, self.indptr.dtype)
        indices, values = np.empty(nnz, self.indices.dtype), np.empty(nnz, np.float32)
        end = _narrow(
            frozen(self.indptr),
            frozen(self.indices),
            frozen(self.values),
            cols,
            indptr,
            indices,
            values,
        )
        return Matrix((rows, cols), indptr, indices[:end], values[:end])

    def transposed(self) -> Matrix:
        """The exact transpose, values bit by bit, columns sorted. O(nnz + rows + cols)."""
        return self.turned()[0]

    def turned(self) -> tuple[Matrix, NDArray[np.integer[Any]]]:
        """`transposed()` and, i4|i8[nnz], where each of its entries stands in this matrix."""
        indptr = np.empty(self.shape[1] + 1, self.indptr.dtype)
        indices, places = (
            np.empty(self.indices.size, self.indices.dtype),
            np.empty(self.indices.size, self.indptr.dtype),
        )
        _turn(frozen(self.indptr), frozen(self.indices), indptr, indices, places)
        return Matrix((self.shape[1], self.shape[0]), indptr, indices, self.values[places]), places


@njit(cache=True, nogil=True)
def _fill(
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    weight: NDArray[np.float32],
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    loops: bool,
    out_indptr: NDArray[np.integer[Any]],
    out_indices: NDArray[np.integer[Any]],
    out_values: NDArray[np.float32],
) -> None:
    weighted = weight.size > 0
    end = 0
    out_indptr[0] = 0
    for i in range(left.size):
        waiting = loops  # the diagonal, until a larger column comes
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            if waiting and j > i:
                out_indices[end] = i
                out_values[end] = left[i] * right[i]
                end += 1
                waiting = False
            out_indices[end] = j
            value = left[i] * right[j]
            out_values[end] = value * weight[k] if weighted else value
            end += 1
        if waiting:
            out_indices[end] = i
            out_values[end] = left[i] * right[i]
            end += 1
        out_indptr[i + 1] = end


@njit(cache=True, nogil=True)
def _narrow(
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    values: NDArray[np.float32],
    cols: int,
    out_indptr: NDArray[np.integer[Any]],
    out_indices: NDArray[np.integer[Any]],
    out_values: NDArray[np.float32],
) -> int:
    end = 0
    out_indptr[0] = 0
    for i in range(out_indptr.size - 1):
        for k in range(indptr[i], indptr[i + 1]):
            if indices[k] >= cols:
                break
            out_indices[end] = indices[k]
            out_values[end] = values[k]
            end += 1
        out_indptr[i + 1] = end
    return end


@njit(cache=True, nogil=True)
def _turn(
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    t_indptr: NDArray[np.integer[Any]],
    t_indices: NDArray[np.integer[Any]],
    places: NDArray[np.integer[Any]],
) -> None:
    cols = t_indptr.size - 1
    t_indptr[:] = 0
    for k in range(indices.size):
        t_indptr[indices[k] + 1] += 1
    for j in range(cols):
        t_indptr[j + 1] += t_indptr[j]
    place = t_indptr[:cols].copy()
    for i in range(indptr.size - 1):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            t_indices[place[j]] = i
            places[place[j]] = k
            place[j] += 1


def _inverse(values: NDArray[Any], power: float) -> NDArray[np.float64]:
    positive = values > 0
    out = np.zeros(values.size, np.float64)
    np.power(values, -power, out=out, where=positive, dtype=np.float64)
    return out


def _factors(
    how: Weights, deg: NDArray[Any], inside: NDArray[Any], rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(a f4[rows], b f4[cols]) with A_ij = a_i b_j; `deg` of the columns, `inside` of the rows,
    without the loop.
    """
    ones = np.ones(deg.size, np.float32)
    if how.adj == "mean":
        return _inverse(inside, 1.0).astype(np.float32), ones
    if how.adj != "norm":
        return ones[:rows], ones
    loop = int(how.self_loops)
    full = deg + np.float64(loop)
    row = np.ones(rows)
    if how.mass == "row":
        row = full[:rows] * _inverse(inside + loop, 1.0)
    if how.normalization == "sym":
        s = _inverse(full, 0.5)
        return (s[:rows] * row).astype(np.float32), s.astype(np.float32)
    if how.normalization == "rw":
        row = row * _inverse(full[:rows], 1.0)
    return row.astype(np.float32), ones


def scales(
    how: Weights,
    rows: int,
    indptr: NDArray[np.integer[Any]],
    deg: NDArray[Any],
    weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(a f4[rows], b f4[cols]) of a matrix with A_ij = a_i b_j w_ij, w = 1 on the diagonal and
    without weights.

    Parameters
    ----------
    rows : of the matrix. indptr : of the pattern without loops. deg : of the columns. weight : as
        in `trimmed`.
    """
    if weight is None or how.adj != "norm":
        inside: NDArray[Any] = np.diff(indptr[: rows + 1])
    else:
        inside = row_sums(indptr[: rows + 1], weight[: int(indptr[rows])])
    return _factors(how, deg, inside, rows)


def _matrix(
    how: Weights,
    rows: int,
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    deg: NDArray[Any],
    weight: NDArray[np.float32] | None,
) -> Matrix:
    nnz = int(indptr[rows])
    left, right = scales(how, rows, indptr, deg, weight)
    if weight is None or how.adj != "norm":
        weight = np.zeros(0, np.float32)
    size = nnz + rows * how.loops
    kind = np.int32 if size <= INT32_MAX else np.int64
    source = indptr[: rows + 1].astype(kind, copy=False)
    out = Matrix(
        (rows, deg.size), np.empty(rows + 1, kind), np.empty(size, kind), np.empty(size, np.float32)
    )
    _fill(
        frozen(source),
        frozen(indices),
        frozen(weight),
        left,
        right,
        how.loops,
        out.indptr,
        out.indices,
        out.values,
    )
    return out


def trimmed(
    how: Weights,
    layers: int,
    num_sampled_nodes: Sequence[int] | NDArray[np.integer[Any]],
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    deg: NDArray[Any],
    weight: NDArray[np.float32] | None = None,
) -> list[Matrix]:
    """One matrix a layer, the first applied first; equal ones are the same object.

    Parameters
    ----------
    how : values.
    layers : L >= 1. Beyond the record's last hop the matrices keep all rows.
    num_sampled_nodes : nodes per hop, the outputs first.
    indptr, indices : i4, CSR of the rows of hops <= L - 1 at least: row = destination, columns
        sorted, no self-loops.
    deg : i4 or f4[nodes of hops <= L or more], whole-graph in-degree (sum of weights for weighted
        "norm"), no loops.
    weight : f4, edge weights in CSR order, used by "norm".

    Returns
    -------
    list of L `Matrix` with shapes (rows of hops <= L - 1, of hops <= L), ..., (outputs, rows of
    hops <= 1). O(nodes + edges of the first), the others are views.
    """
    ends = np.cumsum(np.asarray(num_sampled_nodes, np.int64))
    reach = [int(ends[min(h, ends.size - 1)]) for h in range(layers + 1)]
    first = _matrix(how, reach[layers - 1], indptr, indices, deg[: reach[layers]], weight)
    out = [first]
    for h in range(layers - 1, 0, -1):
        shape = (reach[h - 1], reach[h])
        out.append(out[-1] if out[-1].shape == shape else first.head(*shape))
    return out


def transposes(
    matrices: Sequence[Matrix], *, symmetric: bool, first: bool = True
) -> list[Matrix | None]:
    """The transpose of every matrix of `trimmed`; equal ones are the same object.

    Parameters
    ----------
    matrices : of `trimmed`.
    symmetric : whether A_ij == A_ji (`Weights.symmetric`, undirected, no edge weights): the
        transpose of an inner layer is then a column prefix of the first matrix, and nothing is
        transposed for it.
    first : whether the transpose of the first matrix is read; None stands for it where not.
    """
    out: list[Matrix | None] = []
    outer = matrices[0]
    for i, matrix in enumerate(matrices):
        rows, cols = matrix.shape
        if i and matrix is matrices[i - 1] and out[-1] is not None:
            out.append(out[-1])
        elif i == 0 and not first:
            out.append(None)
        elif symmetric and cols <= outer.shape[0]:
            out.append(outer.narrowed(cols, rows))
        else:
            out.append(matrix.transposed())
    return out


def adjacency(
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    deg: NDArray[Any] | None = None,
    *,
    weight: NDArray[np.float32] | None = None,
    adj: str = "plain",
    normalization: str = "sym",
    mass: str = "none",
    self_loops: bool = True,
) -> Matrix:
    """The matrix of a whole graph: record = graph, every node in every layer.

    Parameters
    ----------
    indptr, indices : i8|i4[N + 1], i4[E], row = destination, columns sorted, no self-loops.
    deg : i4 or f4[N], in-degree without self-loops; from the rows (or the weights) where None.
    weight : f4[E], used by "norm".

    Returns
    -------
    Matrix of shape (N, N); its `transposed()` is the gradient's. O(N + E).
    """
    how = Weights(adj, normalization, mass, self_loops)
    if deg is None:
        deg = np.diff(indptr) if weight is None else row_sums(indptr, weight)
    return _matrix(how, indptr.size - 1, indptr, indices, deg, weight)
