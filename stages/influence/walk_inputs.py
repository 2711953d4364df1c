"""What the stage is given: the sorted outputs of its split, the graph and the constants of the walk
on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stockpot.stages.influence.nodes import read_nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.influence.batch_params import Params
    from stockpot.stages.influence.walk import Walk
    from stockpot.stages.stage import Inputs

__all__ = ["Arrays", "SetWalk", "outputs_of", "owner_of", "set_walk", "walk_of"]


class Given(Protocol):
    """Parameters that say where the outputs come from: train | valid | test, all, or nodes, a file
    of ids.
    """

    @property
    def source(self) -> str: ...


class Walked(Protocol):
    """Parameters of the walk."""

    @property
    def alpha(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def self_loops(self) -> bool: ...


Arrays = tuple["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"]
"""CSR of a graph: indptr, indices, and weights, empty where all are 1."""


def outputs_of(params: Given, inputs: Inputs) -> NDArray[np.int32]:
    """Sorted unique ids of the outputs of this split: i4[O]."""
    num_nodes = int(inputs["graph"].facts["num_nodes"])
    if params.source == "all":
        return np.arange(num_nodes, dtype=np.int32)
    if params.source != "nodes":
        return np.asarray(inputs["split"].array(params.source))
    return read_nodes(inputs["nodes"].path("source"), num_nodes)


def owner_of(ids: NDArray[np.int32], inputs: Inputs) -> NDArray[np.int64]:
    """Part of each output, counted among the parts that hold any: i8[O]."""
    part: NDArray[np.int64] = np.unique(
        np.asarray(inputs["partition"].array("part"))[ids], return_inverse=True
    )[1]
    return part


def walk_of(params: Walked, inputs: Inputs) -> tuple[Arrays, Walk]:
    """CSR arrays and the constants of the walk on them."""
    from stockpot.stages.influence.walk import walk
    from stockpot.stages.ingest.csr import frozen

    graph = inputs["graph"]
    indptr, indices = np.asarray(graph.array("indptr")), np.asarray(graph.array("indices"))
    weight = np.asarray(graph.array("weight")) if graph.has("weight") else None
    constants = walk(
        indptr, weight, self_loops=params.self_loops, alpha=params.alpha, eps=params.eps
    )
    if weight is None:
        weight = frozen(np.empty(0, np.float32))  # one kernel for weighted and unweighted graphs
    return (indptr, indices, weight), constants


@dataclass(frozen=True)
class SetWalk:
    """Arguments of `push_set` for one orientation: the CSR to go along, factors, and the
    thresholds.
    """

    arrays: Arrays
    leaving: NDArray[np.float64]
    entering: NDArray[np.float64]
    settle: NDArray[np.float64]
    threshold: NDArray[np.float64]


def set_walk(params: Params, inputs: Inputs) -> SetWalk:
    """The walk of `params.orientation`; "reference" goes against the edges, so a directed graph is
    transposed.
    """
    arrays, walk = walk_of(params, inputs)
    if params.orientation == "transpose":
        return SetWalk(arrays, walk.spread, np.empty(0, np.float64), walk.settle, walk.threshold)
    if inputs["graph"].facts["directed"]:
        arrays = _transposed(arrays)
    threshold = np.full(len(walk.degree), params.alpha * params.eps * walk.degree.mean())
    return SetWalk(arrays, walk.settle, walk.spread / walk.settle, walk.settle, threshold)


def _transposed(arrays: Arrays) -> Arrays:
    from scipy.sparse import csr_matrix

    from stockpot.stages.ingest.csr import frozen

    indptr, indices, weight = arrays
    n = len(indptr) - 1
    values = weight if len(weight) else np.ones(len(indices), np.float32)
    turned = csr_matrix((values, indices, indptr), shape=(n, n)).T.tocsr()
    found = (
        turned.indptr.astype(np.int64),
        turned.indices.astype(np.int32),
        turned.data if len(weight) else weight,
    )
    return frozen(found[0]), frozen(found[1]), frozen(found[2])
