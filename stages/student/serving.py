"""Answers by a student: one stored row and three products for every node, without the graph; new
nodes by the stored rows of their neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.pack.build import weight_sums
from stockpot.stages.pack.layers import Weights
from stockpot.stages.student.new_rows import joined, new_rows
from stockpot.stages.student.student_network import load_student
from stockpot.stages.student.student_rows import TOLD, StudentRows, matrix_weights
from stockpot.stages.student.teaching import predicted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stockpot.stages.stage import Reader

__all__ = ["Student"]


class Student:
    """A student and the rows it reads: `student(ids)` are probabilities f4[n, C] of nodes.

    Parameters
    ----------
    taught : artifact of stage `student`. codes : the features it was taught on. graph : the
        ingested graph; only degrees are read of it, for new nodes.

    Raises
    ------
    Conflict
        The codes are not those that it was taught on.
    """

    def __init__(self, taught: Reader, codes: Reader, graph: Reader) -> None:
        path = taught.path("student.safetensors")
        self.network, self.metadata = load_student(path)
        if self.metadata["codes"] != codes.digest:
            raise Conflict(
                f"{path}: the student was taught on other features: expected codes of digest "
                f"{self.metadata['codes']}, found {codes.digest}",
                fix="stockpot run RECIPE student --set infer.by=student",
            )
        self.rows = StudentRows(taught, codes)
        products = codes.facts["propagated"]
        self._columns = int(products["own_columns"])
        self._told = taught.array(TOLD) if taught.has(TOLD) else None
        said = 0 if self._told is None else self._told.shape[1]
        self._hops = (self.network.first.in_features - said) // self._columns - 1
        self._how, self._alpha = matrix_weights(products), float(products.get("alpha", 0.0))
        self._graph = graph

    def __call__(self, ids: ArrayLike) -> NDArray[np.float32]:
        """Probabilities f4[n, C] of nodes `ids`, i[n], ids of the ingested graph.

        One row a node is read and multiplied three times: O(n hidden (F + hidden + C)).

        Raises
        ------
        BadInput
            `ids` are not whole numbers from 0, below the number of nodes.
        """
        return predicted(self.network, self.rows.of(self._checked(ids, "ids")))

    def new(
        self,
        x: ArrayLike,
        neighbours: Sequence[ArrayLike],
        weight: Sequence[ArrayLike] | None = None,
    ) -> NDArray[np.float32]:
        """Probabilities f4[n, C] of nodes that are not in the graph, each as if it alone were
        added.

        Parameters
        ----------
        x : f4[n, D], their features as the graph stores them (after `features.reduce`).
        neighbours : ids of the neighbours of each; in-neighbours where the graph is directed.
        weight : weights of these edges, of a graph that has weights; 1 each where None.

        Notes
        -----
        Columns of the first hop are exact. Further hops are approximate, as stored rows of
        neighbours do not know of the new node: see `stockpot.stages.student.new_rows`.

        Raises
        ------
        BadInput
            Shapes do not match, a neighbour is not in the graph or is named twice, or a value is
            not finite.
        """
        return predicted(self.network, self.new_rows(x, neighbours, weight))

    def new_rows(
        self,
        x: ArrayLike,
        neighbours: Sequence[ArrayLike],
        weight: Sequence[ArrayLike] | None = None,
    ) -> NDArray[np.float32]:
        """The rows f4[n, F] that `new` predicts from; parameters as there."""
        features = self._features(x, len(neighbours))
        each = []
        for i, given in enumerate(neighbours):
            ids = self._checked(given, f"neighbours of new node {i}")
            each.append(ids)
            if np.unique(ids).size != ids.size:
                raise BadInput(f"neighbours of new node {i}: expected each once, found one twice")
        indptr, ids = joined(each)
        edges, stored = self._edges(each, weight), self.rows.of(ids)
        width = (self._hops + 1) * self._columns
        rows = new_rows(
            self._how,
            self._hops,
            features,
            indptr,
            stored[:, :width],
            self._degrees(ids, edges),
            edges,
            self._alpha,
        )
        if self._told is None:
            return rows
        told = self._told[ids]
        nothing = np.zeros((len(each), told.shape[1]), np.float32)  # nobody asked the new node yet
        said = new_rows(Weights("mean"), 1, nothing, indptr, told, np.zeros(len(ids)))
        return np.concatenate([rows, said[:, told.shape[1] :]], axis=1)

    def _features(self, x: ArrayLike, count: int) -> NDArray[np.float32]:
        features = np.asarray(x, np.float32)
        if features.shape != (count, self._columns):
            raise BadInput(
                f"x: expected {count} rows, one for each list of neighbours, of the graph's "
                f"{self._columns} columns, found shape {features.shape}"
            )
        if not np.isfinite(features).all():
            raise BadInput("x: expected finite values, found others")
        return features

    def _edges(
        self, each: Sequence[NDArray[np.int64]], weight: Sequence[ArrayLike] | None
    ) -> NDArray[np.float32] | None:
        """Weights of all edges one after the other; None where the graph has none."""
        if not self._graph.has("weight"):
            if weight is not None:
                raise BadInput("weight: expected none, as the graph has none, found some")
            return None
        if weight is None:
            return np.ones(sum(map(len, each)), np.float32)
        found = [np.asarray(part, np.float32) for part in weight]
        if [part.shape for part in found] != [ids.shape for ids in each]:
            raise BadInput("weight: expected one for each neighbour, found another number")
        return np.concatenate([np.zeros(0, np.float32), *found])

    def _degrees(
        self, ids: NDArray[np.int64], edges: NDArray[np.float32] | None
    ) -> NDArray[np.float64]:
        """In-degrees of neighbours as they are once the new node is there; a mean reads none."""
        if self._how.adj == "mean":
            return np.zeros(len(ids))
        indptr = self._graph.array("indptr")
        if edges is None:
            found = (indptr[ids + 1] - indptr[ids]).astype(np.float64)
            return found if self._graph.facts["directed"] else found + 1.0
        weight = self._graph.array("weight")
        found = weight_sums(frozen(ids), frozen(indptr), frozen(weight)).astype(np.float64)
        return found if self._graph.facts["directed"] else found + edges

    def _checked(self, ids: ArrayLike, what: str) -> NDArray[np.int64]:
        found = np.asarray(ids)
        if found.size == 0:
            return np.zeros(0, np.int64)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise BadInput(
                f"{what}: expected a list of whole numbers, found {found.dtype} of shape "
                f"{found.shape}"
            )
        if found.min() < 0 or found.max() >= self.rows.num_nodes:
            wrong = found[(found < 0) | (found >= self.rows.num_nodes)][0]
            raise BadInput(
                f"{what}: expected nodes from 0 to {self.rows.num_nodes - 1}, found {wrong}"
            )
        return found.astype(np.int64)
