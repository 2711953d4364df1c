"""Sampled batches: hops outwards from the outputs, each sorted by (block, id), a CSR for each
layer.

The choice of a vertex' in-edges is a function of the batch's keys and the vertex alone (LABOR-i's
importances, of all vertices of its hop too), so ranks that sample their own outputs together have
exactly the edges of one process on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.pack.record import Layer
from stockpot.stages.sample.importance import importances
from stockpot.stages.sample.limits import check
from stockpot.stages.sample.pick import poisson, smallest
from stockpot.stages.sample.relabel import collect, forget, mark, relabel, slots
from stockpot.stages.sample.variates import drift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.sample.variates import Drift

__all__ = ["Graph", "Sampled", "Sampler", "Sampling"]

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """How batches are sampled.

    Attributes
    ----------
    method : "neighbor", k neighbours of each row for itself; "labor", one variate a vertex for all
        rows.
    fanouts : neighbours of a row for each layer from the outputs, at least 1, or -1: all; more than
        there are is all.
    importance_sampling : of "labor": updates of the importances, 0 for LABOR-0, -1 for LABOR-*.
    layer_dependency : all layers share their variates.
    kappa : batches from one set of independent variates to the next, at least 1; None: one set for
        ever.
    seed : of the variates.
    sequential : LABOR-0 with exactly min(k, d) neighbours (sequential Poisson sampling) instead of
        so many expected.
    """

    method: str
    fanouts: tuple[int, ...]
    importance_sampling: int = 0
    layer_dependency: bool = False
    kappa: int | None = 1
    seed: int = 0
    sequential: bool = False

    def __post_init__(self) -> None:
        check(self.method, self.fanouts, self.importance_sampling, self.kappa)
        if self.sequential and self.importance_sampling:
            raise BadInput(
                "sampling: expected importance_sampling 0 where it is sequential, found both"
            )

    def drift(self, batch: int) -> Drift:
        """Keys and phase of a batch."""
        layers, dependent = len(self.fanouts), self.layer_dependency
        return drift(self.seed, batch, self.kappa, layers, layer_dependency=dependent)

    def one_csr(self, *, weighted: bool) -> bool:
        """Whether the CSR of each layer is a prefix of the last one's, all its neighbours of equal
        weight.
        """
        same = self.layer_dependency and len(set(self.fanouts)) == 1
        return same and self.importance_sampling == 0 and not weighted


@dataclass(frozen=True)
class Graph:
    """Whole graph: `indptr` i8[N + 1], `indices` i4[E], row = destination, `weight` f4[E] (empty:
    all 1, none < 0).

    `rank`, `by_rank` i4[N] (empty: by id): position of a vertex in the order hops are sorted by,
    and its inverse; `starts` i8[K + 1], first position of each block.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weight: NDArray[np.float32]
    rank: NDArray[np.int32]
    by_rank: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        weight: NDArray[np.float32] | None = None,
        block: NDArray[np.integer[Any]] | None = None,
        blocks: int = 1,
    ) -> Graph:
        """Graph with hops sorted by (block, id); `block` i[N], below `blocks`. One block where
        there is none.
        """
        num_nodes = len(indptr) - 1
        if weight is None:
            weight = np.empty(0, np.float32)
        if block is None or blocks == 1:
            rank = by_rank = frozen(np.empty(0, np.int32))
            starts = np.array([0, num_nodes], np.int64)
        else:
            order = np.argsort(block, kind="stable").astype(np.int32)
            place = np.empty(num_nodes, np.int32)
            place[order] = np.arange(num_nodes, dtype=np.int32)
            starts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=blocks))]).astype(
                np.int64
            )
            rank, by_rank = frozen(place), frozen(order)
        return cls(frozen(indptr), frozen(indices), frozen(weight), rank, by_rank, frozen(starts))

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.indptr) - 1

    @property
    def weighted(self) -> bool:
        """Whether edges have weights."""
        return self.weight.size > 0


@dataclass(frozen=True)
class Sampled:
    """One sampled batch of L layers.

    Attributes
    ----------
    n_id : i4[n], vertices, the outputs first, then those each layer adds, inside a hop by (block,
        id).
    block_ptr : i4[L + 1, K + 1], first row of each block in each hop.
    layers : from the outputs; layer l has the rows of hops <= l and columns of hops <= l + 1.
    """

    n_id: NDArray[np.int32]
    block_ptr: NDArray[np.int32]
    layers: tuple[Layer, ...]

    @property
    def num_sampled_nodes(self) -> NDArray[np.int32]:
        """i4[L + 1], vertices a hop adds."""
        counts: NDArray[np.int32] = self.block_ptr[:, -1] - self.block_ptr[:, 0]
        return counts


class Sampler:
    """Samples batches of a graph; a thread of work needs one of its own: 4 bytes and a bit a node
    of scratch, 8 more where LABOR drifts.
    """

    def __init__(self, graph: Graph, how: Sampling) -> None:
        self.graph, self.how = graph, how
        self.local = np.full(graph.num_nodes, -1, np.int32)
        self.bits = np.zeros(-(-graph.num_nodes // 64), np.uint64)
        drifting = how.method == "labor" and not how.sequential and how.kappa not in (None, 1)
        self.memo = np.full(graph.num_nodes if drifting else 0, -1.0)

    def batch(self, number: int, outputs: NDArray[np.int32]) -> Sampled:
        """Batch `number` of the sequence, with distinct `outputs` (i4[o], any order): O(edges
        scanned + L N / 64).

        Raises
        ------
        BadInput
            The batch has more edges than 32-bit ids count.
        """
        graph, turn = self.graph, self.how.drift(number)
        try:
            n_id, first = self._new(np.empty(0, np.int32), frozen(outputs), np.arange(len(outputs)))
            pointers, layers = [first], []
            for layer, k in enumerate(self.how.fanouts):
                out_ptr, edge, scale = self.pick(n_id, k, turn, layer)
                if len(edge) > INT32_MAX:
                    raise BadInput(
                        f"batch {number}: {len(edge)} edges, expected at most {INT32_MAX}",
                        fix="lower batches.outputs",
                    )
                n_id, pointer = self._new(n_id, graph.indices, edge)
                pointers.append(pointer)
                layers.append(self._layer(out_ptr, edge, scale))
        finally:
            forget(n_id, self.local)
        return Sampled(n_id, np.stack(pointers), tuple(layers))

    def pick(
        self, rows: NDArray[np.int32], k: int, turn: Drift, layer: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """(row pointer i8[R + 1], kept entries of the graph i8[m], 1 / p f4[m] or empty) of any
        rows, as they come.
        """
        graph, how = self.graph, self.how
        arrays = graph.indptr, graph.indices, graph.weight
        rows = frozen(rows)
        keys = np.uint64(turn.first[layer]), np.uint64(turn.second[layer])
        if how.method == "neighbor" or how.sequential:
            return smallest(*arrays, rows, k, keys, turn.cos, turn.sin, how.method == "neighbor")
        slot, c, pi = np.empty(0, np.int32), np.empty(0), np.empty(0)
        if how.importance_sampling:
            slot, sources = slots(graph.indptr, graph.indices, rows, self.local)
            c, pi = np.empty(len(rows)), np.empty(sources)
            importances(graph.indptr, graph.weight, rows, k, how.importance_sampling, slot, c, pi)
        memo = self.memo if turn.sin else self.memo[:0]
        return poisson(*arrays, rows, k, keys, turn.cos, turn.sin, slot, c, pi, memo)

    def _layer(
        self, out_ptr: NDArray[np.int64], edge: NDArray[np.int64], scale: NDArray[np.float32]
    ) -> Layer:
        graph = self.graph
        indptr, columns, edge_w, weight = relabel(
            graph.indices, graph.weight, out_ptr, edge, scale, self.local
        )
        uneven = graph.weighted or self.how.importance_sampling != 0
        return Layer(
            indptr, columns, edge_w if uneven else None, weight if graph.weighted else None
        )

    def _new(
        self, known: NDArray[np.int32], ids: NDArray[np.int32], edge: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        graph = self.graph
        mark(ids, edge, graph.rank, self.local, self.bits)
        return collect(self.bits, graph.by_rank, self.local, known, graph.starts)
