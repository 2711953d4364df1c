"""Feature rows of a graph, dense or sparse, a block at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.feature_columns import hop_name, slab_starts
from stockpot.stages.codec.row_blocks import BLOCK_ROWS, CHUNK_BYTES
from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.stage import Inputs, Reader

__all__ = ["Features"]


class Features:
    """Feature rows of a graph, dense or sparse.

    Parameters
    ----------
    num_features : number of columns, those of `more` among them.
    x : f4[N, D], or None where the features are sparse.
    indptr, indices, data : i8[N + 1], i4[nnz] sorted inside a row, f4[nnz] or None where all are
        ones.
    more : f4[N, any] each, further columns behind these.
    """

    def __init__(
        self,
        num_features: int,
        x: NDArray[np.float32] | None = None,
        indptr: NDArray[np.int64] | None = None,
        indices: NDArray[np.int32] | None = None,
        data: NDArray[np.float32] | None = None,
        more: Sequence[NDArray[np.float32]] = (),
    ) -> None:
        self.num_features, self.x, self.data = num_features, x, data
        self.more = list(more)
        self.own_features = num_features - sum(part.shape[1] for part in self.more)
        self.indptr = np.zeros(1, np.int64) if indptr is None else indptr
        self.indices = np.zeros(0, np.int32) if indices is None else indices
        self.num_rows = len(x) if x is not None else self.indptr.size - 1

    @classmethod
    def of(cls, inputs: Inputs) -> Features:
        """The features that are coded, mapped: those of `graph`, and behind them the products of
        `propagated` where there are.
        """
        return cls.from_reader(inputs["graph"], inputs.get("propagated"))

    @classmethod
    def from_reader(cls, graph: Reader, propagated: Reader | None = None) -> Features:
        """The features of an ingested graph and of its propagated ones, mapped."""
        columns, more = int(graph.facts["num_features"]), []
        if propagated is not None:
            facts = propagated.facts
            more = [
                propagated.array(hop_name(hop, start))
                for hop in range(1, int(facts["hops"]) + 1)
                for start in slab_starts(columns, int(facts["columns"]))
            ]
            columns = int(facts["num_features"])
        if graph.facts["features"] == "dense":
            return cls(columns, graph.array("x"), more=more)
        data = graph.array("x_data") if graph.has("x_data") else None
        return cls(
            columns, None, graph.array("x_indptr"), graph.array("x_indices"), data, more=more
        )

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Dense rows `start` to `stop` in order: (first row, f4[rows, D]), at most about
        `CHUNK_BYTES` at a time.

        `start` is a multiple of `BLOCK_ROWS`, as is every first row.
        """
        step = max(1, CHUNK_BYTES // (4 * BLOCK_ROWS * max(1, self.num_features))) * BLOCK_ROWS
        stop = self.num_rows if stop is None else stop
        for first in range(start, stop, step):
            last = min(first + step, stop)
            if self.x is not None and not self.more:
                yield first, np.ascontiguousarray(self.x[first:last], dtype=np.float32)
                continue
            block = self._beside(last - first, slice(first, last))
            if self.x is not None:
                block[:, : self.own_features] = self.x[first:last]
            else:
                begin, end = int(self.indptr[first]), int(self.indptr[last])
                rows = np.repeat(np.arange(last - first), np.diff(self.indptr[first : last + 1]))
                block[rows, self.indices[begin:end]] = (
                    1.0 if self.data is None else self.data[begin:end]
                )
            yield first, block

    def _beside(self, count: int, ids: slice | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Dense rows whose own columns are zero still."""
        block = np.empty((count, self.num_features), np.float32)
        block[:, : self.own_features] = 0.0
        at = self.own_features
        for part in self.more:
            block[:, at : at + part.shape[1]] = part[ids]
            at += part.shape[1]
        return block

    def rows(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Dense rows of nodes `ids`, f4[len(ids), D]."""
        if self.x is not None and not self.more:
            return np.asarray(self.x[ids], np.float32)
        block = self._beside(len(ids), ids)
        if self.x is not None:
            block[:, : self.own_features] = self.x[ids]
            return block
        begin = np.asarray(self.indptr[ids])
        counts = np.asarray(self.indptr[ids + 1]) - begin
        row = np.repeat(np.arange(len(ids)), counts)
        at = np.arange(len(row)) + np.repeat(
            begin - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts
        )
        block[row, self.indices[at]] = 1.0 if self.data is None else self.data[at]
        return block

    def check(self, block: NDArray[np.float32], first: int) -> None:
        """Refuse values that are not finite, by row and column; `first` is the node of the block's
        first row.
        """
        sound = np.isfinite(block)
        if not sound.all():
            row, column = divmod(int(np.flatnonzero(~sound.reshape(-1))[0]), block.shape[1])
            raise BadInput(
                f"features: expected finite values, found {block[row, column]} at node "
                f"{first + row}, column {column}",
                fix="replace NaN and infinite values in the data set",
            )

    def nonzeros(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """(indptr i8[N + 1], indices i4[nnz], values f4[nnz]) of what is not 0; -0 is 0."""
        counts, ids, values = np.zeros(self.num_rows, np.int64), [], []
        for first, block in self.chunks():
            rows, columns = np.nonzero(block)
            counts[first : first + len(block)] = np.bincount(rows, minlength=len(block))
            ids.append(columns.astype(np.int32))
            values.append(block[rows, columns])
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return (
            indptr,
            np.concatenate([*ids, np.zeros(0, np.int32)]),
            np.concatenate([*values, np.zeros(0, np.float32)]),
        )

    def ones(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(indptr i8[N + 1], indices i4[nnz]) of the ones of a binary matrix; stored zeros are left
        out.
        """
        if self.x is None and self.data is None and not self.more:
            return self.indptr, self.indices
        counts, ids = np.zeros(self.num_rows, np.int64), []
        for first, block in self.chunks():
            rows, columns = np.nonzero(block)
            counts[first : first + len(block)] = np.bincount(rows, minlength=len(block))
            ids.append(columns.astype(np.int32))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return indptr, np.concatenate(ids) if ids else np.zeros(0, np.int32)
