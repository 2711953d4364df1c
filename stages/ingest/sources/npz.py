"""An npz file as a `DataSet`: edges and feature rows are read in blocks, whether its members are
compressed or not.

Members `edge_index` (2, E), `edge_weight`, `num_nodes`, `x` or `x_data`, `x_indices`, `x_indptr`,
`x_shape`, `y`, and `train_idx`, `valid_idx`, `test_idx` or `train_masks`, `valid_masks`,
`test_masks`; other usual names as `stockpot.stages.ingest.fields` says.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.edges import check_ids, check_weight, read_num_nodes
from stockpot.stages.ingest.features import SparseRows, check_dense_rows, check_sparse_rows
from stockpot.stages.ingest.labels import check_labels, read_splits
from stockpot.stages.ingest.members import open_npz
from stockpot.stages.ingest.source_data import EdgeBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.errors import BadInput
    from stockpot.stages.ingest.members import Members
    from stockpot.stages.ingest.source_data import Features
    from stockpot.stages.stage import Reader

__all__ = ["NpzDataSet", "open_npz_dataset"]

_PARTS = ("x_data", "x_indices", "x_indptr", "x_shape")


@contextmanager
def open_npz_dataset(reader: Reader) -> Iterator[NpzDataSet]:
    """Open the npz file behind a source's reader."""
    with open_npz(reader.path("source")) as members:
        yield NpzDataSet(members)


class NpzDataSet:
    """See `stockpot.stages.ingest.source_data.DataSet`; a block of edges takes 16 bytes an edge as
    read, 8 as given.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self.left_out = members.fields.left_out
        self.num_nodes = read_num_nodes(members)
        self.num_edges = self._count_edges()
        self.weighted = "edge_weight" in members
        if self.weighted:
            self._check_weight()

    def _count_edges(self) -> int:
        edges = self._members.stream("edge_index")
        if len(edges.shape) != 2 or edges.shape[0] != 2:
            turned = len(edges.shape) == 2 and edges.shape[1] == 2
            fix = (
                "store edge_index.T: row 0 the sources, row 1 the destinations" if turned else None
            )
            raise self.bad("edge_index", f"expected shape (2, E), found {edges.shape}", fix)
        if edges.shape[1] == 0:
            raise self.bad("edge_index", "expected at least one edge, found no edges at all")
        if edges.dtype.kind not in "iu":
            # Refused either way: only the text asks for the values.
            rows = self._members["edge_index"]
            odd = [row for row in rows if row.dtype.kind == "f" and not np.isfinite(row).all()]
            check_ids(self.bad, "edge_index", (odd or rows)[0], self.num_nodes, "edge")
        return edges.shape[1]

    def _check_weight(self) -> None:
        weight = self._members.stream("edge_weight")
        if (
            weight.shape not in ((self.num_edges,), (self.num_edges, 1))
            or weight.dtype.kind not in "fiu"
        ):
            raise self.bad(
                "edge_weight",
                f"expected {self.num_edges} numbers, one an edge, found shape {weight.shape} of "
                f"{weight.dtype}",
            )

    def edges(self, most: int) -> Iterator[EdgeBlock]:
        """All stored edges in order; two handles on a member, one a row, for what is compressed has
        no other way in.
        """
        first, second = self._members.stream("edge_index"), self._members.stream("edge_index")
        weight = self._members.stream("edge_weight") if self.weighted else None
        for start in range(0, self.num_edges, most):
            stop = min(start + most, self.num_edges)
            with self._members.reading("edge_index"):
                if first.fortran:
                    pairs = first.read(2 * start, 2 * stop).reshape(-1, 2)
                    source, target = (
                        np.ascontiguousarray(pairs[:, 0]),
                        np.ascontiguousarray(pairs[:, 1]),
                    )
                else:
                    source = first.read(start, stop)
                    target = second.read(self.num_edges + start, self.num_edges + stop)
            checked = [
                check_ids(self.bad, "edge_index", ids, self.num_nodes, "edge", start)
                for ids in (source, target)
            ]
            values = None
            if weight is not None:
                with self._members.reading("edge_weight"):
                    values = weight.read(start, stop)
                values = check_weight(self.bad, "edge_weight", values, start)
            yield EdgeBlock(checked[0], checked[1], values)

    def features(self) -> Features | None:
        """`x`, or the parts of a CSR matrix."""
        parts = [name for name in _PARTS if name in self._members]
        if "x" in self._members:
            if parts:
                raise self.bad(
                    "x", f"expected either x or the parts of a CSR matrix, found also {parts[0]}"
                )
            return _Dense(self._members, self.num_nodes)
        return _Sparse(self._members, self.num_nodes) if parts else None

    def labels(self) -> NDArray[np.int32]:
        return check_labels(self.bad, "y", self._members["y"], self.num_nodes)

    def splits(self) -> list[dict[str, NDArray[np.int32]]]:
        return read_splits(self._members, self.num_nodes)

    def write_node_ids(self, path: Callable[[str], Path]) -> None:
        """Nothing: nodes of an npz file have no names but their numbers."""

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        return self._members.bad(name, text, fix)


class _Dense:
    """Rows of `x`. A column-major one (Fortran order) is loaded whole: its rows lie scattered over
    the member.
    """

    sparse = False

    def __init__(self, members: Members, num_nodes: int) -> None:
        self._members = members
        self._stream = members.stream("x")
        shape, dtype = self._stream.shape, self._stream.dtype
        if len(shape) != 2 or dtype.kind not in "fiub":
            raise members.bad(
                "x", f"expected numbers of shape ({num_nodes}, D), found shape {shape} of {dtype}"
            )
        if shape[0] != num_nodes:
            raise members.bad("x", f"expected {num_nodes} rows, one a node, found {shape[0]}")
        if shape[1] == 0:
            raise members.bad("x", "expected at least one column, found none")
        self.columns = shape[1]
        self._whole: NDArray[Any] | None = members["x"] if self._stream.fortran else None

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        if self._whole is not None:
            return check_dense_rows(self._members.bad, "x", self._whole[start:stop], start)
        with self._members.reading("x"):
            values = self._stream.read(start * self.columns, stop * self.columns).reshape(
                -1, self.columns
            )
        return check_dense_rows(self._members.bad, "x", values, start)


class _Sparse:
    """Rows of a CSR matrix; its row pointers are held, 8 bytes a node."""

    sparse = True

    def __init__(self, members: Members, num_nodes: int) -> None:
        self._members = members
        self._indices, shape = members.stream("x_indices"), members["x_shape"]
        found = tuple(shape.ravel().tolist())
        if (
            shape.dtype.kind not in "iu"
            or len(found) != 2
            or found[0] != num_nodes
            or not 1 <= found[1] < 2**31
        ):
            raise members.bad(
                "x_shape", f"expected ({num_nodes}, D): {num_nodes} rows, one a node, found {found}"
            )
        self.columns = int(found[1])
        if len(self._indices.shape) != 1 or self._indices.dtype.kind not in "iu":
            raise members.bad(
                "x_indices",
                f"expected integers, found shape {self._indices.shape} of {self._indices.dtype}",
            )
        self._indptr = self._pointers(num_nodes)
        self._data = members.stream("x_data") if "x_data" in members else None
        if self._data is not None and (
            self._data.shape != self._indices.shape or self._data.dtype.kind not in "fiub"
        ):
            raise members.bad(
                "x_data",
                f"expected {self._indices.size} numbers, one a column index, "
                f"found shape {self._data.shape} of {self._data.dtype}",
            )

    def _pointers(self, num_nodes: int) -> NDArray[np.int64]:
        indptr, end = self._members["x_indptr"], self._indices.size
        if indptr.shape != (num_nodes + 1,) or indptr.dtype.kind not in "iu":
            raise self._members.bad(
                "x_indptr",
                f"expected {num_nodes + 1} integers, found shape {indptr.shape} of {indptr.dtype}",
            )
        indptr = indptr.astype(np.int64, copy=False)
        falls = bool((indptr[1:] < indptr[:-1]).any())
        if indptr[0] != 0 or indptr[-1] != end or falls:
            raise self._members.bad(
                "x_indptr",
                f"expected offsets rising from 0 to {end}, the length of x_indices, "
                f"found {indptr[0]} to {indptr[-1]}" + ", falling between" * falls,
            )
        return indptr

    def rows(self, start: int, stop: int) -> SparseRows:
        begin, end = int(self._indptr[start]), int(self._indptr[stop])
        with self._members.reading("x_indices"):
            indices = self._indices.read(begin, end)
        data: NDArray[Any] = np.ones(len(indices), np.uint8)
        if self._data is not None:
            with self._members.reading("x_data"):
                data = self._data.read(begin, end)
        indptr = self._indptr[start : stop + 1] - begin
        return check_sparse_rows(
            self._members.bad, ("x_indices", "x_data"), indptr, indices, data, self.columns, start
        )
