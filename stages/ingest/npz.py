"""What comes out of a data set file was checked whole: every id in range, every feature finite, every label a class."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Dataset", "SparseRows", "read_npz"]

SPLITS = ("train", "valid", "test")
INT32_NODES = 2**31 - 1


@dataclass(frozen=True)
class SparseRows:
    """CSR feature rows: `indptr` i8[N+1], `indices` i4 sorted and unique in a row, `data` f4, None where all are 1."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32] | None
    columns: int


@dataclass
class Dataset:
    """A data set as published.

    Attributes
    ----------
    num_nodes : N.
    edge_index : i4[2, E], row 0 the source and row 1 the destination of each stored edge.
    weight : f4[E], None where edges have none.
    x : f4[N, D], `SparseRows`, or None.
    y : i4[N], -1 where unlabelled.
    splits : for each published split the sorted i4 ids of train, valid and test.
    """

    num_nodes: int
    edge_index: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    x: NDArray[np.float32] | SparseRows | None
    y: NDArray[np.int32]
    splits: list[dict[str, NDArray[np.int32]]] = field(default_factory=list)


def read_npz(path: Path) -> Dataset:
    """Read and check an `npz:` data set (members: README, Recipes).

    Raises
    ------
    BadInput
        Names the file, the member, and the first entry that is wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return _read(path, _Members(path, file))
    except BadInput:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a readable npz file ({error})", fix="write it again with numpy.savez") from error


class _Members:
    """Members of the file by name, with errors that name them."""

    def __init__(self, path: Path, file: Any) -> None:
        if not hasattr(file, "files"):
            raise BadInput(f"{path}: expected an npz archive, found a single array", fix="write it with numpy.savez")
        self.path, self.file = path, file

    def __contains__(self, name: str) -> bool:
        return name in self.file.files

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise self.bad(name, f"expected this member, found {', '.join(sorted(self.file.files)) or 'none'}")
        try:
            return np.asarray(self.file[name])
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise self.bad(name, "expected numbers, found pickled objects") from error
            raise

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        return BadInput(f"{self.path}: {name}: {text}", fix=fix)


def _read(path: Path, members: _Members) -> Dataset:
    edges = members["edge_index"]
    y = members["y"] if "y" in members else None
    nodes = _num_nodes(members, y)
    edge_index = _edges(members, edges, nodes)
    weight = _weight(members, edge_index.shape[1])
    labels = _labels(members, y, nodes)
    x = _features(members, nodes)
    return Dataset(nodes, edge_index, weight, x, labels, _splits(members, nodes, path))


def _num_nodes(members: _Members, y: NDArray[Any] | None) -> int:
    if "num_nodes" in members:
        found = members["num_nodes"]
        if found.size != 1 or found.dtype.kind not in "iu" or int(found) < 1:
            raise members.bad("num_nodes", f"expected one positive integer, found {found!r}")
        nodes = int(found)
    elif y is not None:
        nodes = len(y)
    else:
        raise members.bad("num_nodes", "expected this member, or y to count the nodes; found neither")
    if nodes > INT32_NODES:
        raise members.bad("num_nodes", f"expected at most {INT32_NODES} nodes in this version, found {nodes}")
    return nodes


def _ids(members: _Members, name: str, values: NDArray[Any], nodes: int, what: str) -> NDArray[np.int32]:
    """Node ids as i4; floats are refused even where they are whole, since they lose ids above 2^24 or 2^53."""
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values.ravel()))
        detail = f", and {values.ravel()[bad[0]]} at {what} {_at(values, bad[0])}" if bad.size else ""
        raise members.bad(name, f"expected integer node ids, found {values.dtype}{detail}", fix="store it as int32 or int64")
    if values.dtype.kind not in "iu":
        raise members.bad(name, f"expected integer node ids, found {values.dtype}", fix="store it as int32 or int64")
    wrong = np.flatnonzero((values.ravel() < 0) | (values.ravel() >= nodes)) if values.size else np.empty(0, int)
    if wrong.size:
        at = int(wrong[0])
        raise members.bad(name, f"expected ids from 0 to {nodes - 1}, found {values.ravel()[at]} at {what} {_at(values, at)}")
    return values.astype(np.int32, copy=False)


def _at(values: NDArray[Any], flat: int) -> int:
    return int(flat) % values.shape[-1] if values.ndim > 1 else int(flat)


def _edges(members: _Members, edges: NDArray[Any], nodes: int) -> NDArray[np.int32]:
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise members.bad("edge_index", f"expected shape (2, E), found {edges.shape}")
    if edges.shape[1] == 0:
        raise members.bad("edge_index", "expected at least one edge, found no edges at all")
    return _ids(members, "edge_index", edges, nodes, "edge")


def _weight(members: _Members, edges: int) -> NDArray[np.float32] | None:
    if "edge_weight" not in members:
        return None
    weight = members["edge_weight"]
    if weight.shape != (edges,) or weight.dtype.kind not in "fiu":
        raise members.bad("edge_weight", f"expected {edges} numbers, one an edge, found shape {weight.shape} of {weight.dtype}")
    weight = weight.astype(np.float32)
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if wrong.size:
        at = int(wrong[0])
        raise members.bad("edge_weight", f"expected finite weights of 0 or more, found {weight[at]} at edge {at}")
    return weight


def _labels(members: _Members, y: NDArray[Any] | None, nodes: int) -> NDArray[np.int32]:
    if y is None:
        raise members.bad("y", "expected one label a node (-1 = unlabelled), found no labels")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise members.bad("y", f"expected one class a node, found shape {y.shape}: multi-label targets are not available in this version")
    if len(y) != nodes:
        raise members.bad("y", f"expected {nodes} labels, one a node, found {len(y)}")
    if y.dtype.kind == "f":
        labelled = ~np.isnan(y)
        if not np.array_equal(y[labelled], np.trunc(y[labelled])) or np.isinf(y[labelled]).any():
            at = int(np.flatnonzero(labelled & ((y != np.trunc(y)) | np.isinf(y)))[0])
            raise members.bad("y", f"expected integer classes, found {y[at]} at node {at}: regression targets are not available in this version")
        y = np.where(labelled, y, -1)
    elif y.dtype.kind not in "iub":
        raise members.bad("y", f"expected integer classes, found {y.dtype}")
    y = y.astype(np.int64)
    if y.min(initial=0) < -1 or y.max(initial=0) >= INT32_NODES:
        at = int(np.flatnonzero((y < -1) | (y >= INT32_NODES))[0])
        raise members.bad("y", f"expected classes from 0, or -1 for unlabelled, found {y[at]} at node {at}")
    if not (y >= 0).any():
        raise members.bad("y", "expected at least one labelled node, found -1 everywhere")
    return y.astype(np.int32)


def _finite(members: _Members, name: str, values: NDArray[np.float32], where: Any) -> None:
    wrong = np.flatnonzero(~np.isfinite(values.ravel()))
    if wrong.size:
        row, column = where(int(wrong[0]))
        raise members.bad(name, f"expected finite features, found {values.ravel()[wrong[0]]} at node {row}, column {column}")


def _features(members: _Members, nodes: int) -> NDArray[np.float32] | SparseRows | None:
    if "x" in members:
        x = members["x"]
        if x.ndim != 2 or x.dtype.kind not in "fiub":
            raise members.bad("x", f"expected numbers of shape ({nodes}, D), found shape {x.shape} of {x.dtype}")
        if len(x) != nodes:
            raise members.bad("x", f"expected {nodes} rows, one a node, found {len(x)}")
        if x.shape[1] == 0:
            raise members.bad("x", "expected at least one column, found none")
        # Values that overflow to inf are found by the check that follows; the warning would only repeat it.
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, np.float32)
        _finite(members, "x", x, lambda at: divmod(at, x.shape[1]))
        return x
    if not any(f"x_{part}" in members for part in ("data", "indices", "indptr", "shape")):
        return None
    return _sparse(members, nodes)


def _sparse(members: _Members, nodes: int) -> SparseRows:
    import scipy.sparse as sp

    data, indices, indptr, shape = (members[f"x_{part}"] for part in ("data", "indices", "indptr", "shape"))
    if shape.size != 2 or int(shape.ravel()[0]) != nodes or int(shape.ravel()[1]) < 1:
        raise members.bad("x_shape", f"expected ({nodes}, D), found {tuple(shape.ravel().tolist())}")
    columns = int(shape.ravel()[1])
    sound = indptr.ndim == 1 and len(indptr) == nodes + 1 and indptr.dtype.kind in "iu" and indptr[0] == 0
    if not sound or (np.diff(indptr.astype(np.int64)) < 0).any() or int(indptr[-1]) != len(indices):
        raise members.bad("x_indptr", f"expected {nodes + 1} rising offsets from 0 to {len(indices)}")
    if indices.dtype.kind not in "iu" or (indices.size and (indices.min() < 0 or indices.max() >= columns)):
        raise members.bad("x_indices", f"expected columns from 0 to {columns - 1}")
    if len(data) != len(indices) or data.dtype.kind not in "fiub":
        raise members.bad("x_data", f"expected {len(indices)} numbers, found {len(data)} of {data.dtype}")
    values = data.astype(np.float32)
    indptr = indptr.astype(np.int64)
    _finite(members, "x_data", values, lambda at: (int(np.searchsorted(indptr, at, side="right")) - 1, int(indices[at])))
    matrix = sp.csr_matrix((values, indices.astype(np.int32), indptr), shape=(nodes, columns))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    ones = bool((matrix.data == 1).all())
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), None if ones else matrix.data, columns)


def _splits(members: _Members, nodes: int, path: Path) -> list[dict[str, NDArray[np.int32]]]:
    lists = [f"{name}_idx" for name in SPLITS]
    masks = [f"{name}_masks" for name in SPLITS]
    for names in (lists, masks):
        present = [name for name in names if name in members]
        if present and len(present) < len(names):
            missing = next(name for name in names if name not in members)
            raise members.bad(missing, f"expected this member beside {present[0]}, found none")
    if lists[0] in members:
        ids = [_ids(members, name, members[name], nodes, "position").ravel() for name in lists]
        found = [dict(zip(SPLITS, ids, strict=True))]
    elif masks[0] in members:
        tables = [np.atleast_2d(members[name]) for name in masks]
        for name, table in zip(masks, tables, strict=True):
            if table.shape != (len(tables[0]), nodes) or table.dtype.kind not in "biu":
                raise members.bad(name, f"expected booleans of shape (S, {nodes}), found shape {table.shape} of {table.dtype}")
        found = [
            {name: np.flatnonzero(table[s]).astype(np.int32) for name, table in zip(SPLITS, tables, strict=True)}
            for s in range(len(tables[0]))
        ]
    else:
        return []
    return [_split(path, s, split) for s, split in enumerate(found)]


def _split(path: Path, number: int, split: dict[str, NDArray[np.int32]]) -> dict[str, NDArray[np.int32]]:
    """The split with sorted ids, none twice and none in two parts."""
    where = f"{path}: split {number}"
    sorted_ids = {}
    for name, ids in split.items():
        if len(ids) == 0:
            raise BadInput(f"{where}: {name}: expected at least one node, found an empty split")
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            raise BadInput(f"{where}: {name}: expected each node once, found node {unique[counts > 1][0]} twice")
        sorted_ids[name] = unique
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(sorted_ids[first], sorted_ids[second], assume_unique=True)
        if both.size:
            raise BadInput(f"{where}: expected disjoint splits, found node {both[0]} in both {first} and {second}")
    return sorted_ids
