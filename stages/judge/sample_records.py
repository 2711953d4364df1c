"""Records of a sample of the graph as `influence` and `pack` make them, by the same kernels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.influence.grouping import by_influence, grouped
from stockpot.stages.influence.mix import balanced
from stockpot.stages.influence.pairs import overlaps, shared
from stockpot.stages.influence.push import push_top, workspace
from stockpot.stages.influence.spans import PAIRS
from stockpot.stages.influence.union import record_nodes
from stockpot.stages.influence.walk import walk
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.judge.spending import ALPHA, EPS, TOP_K
from stockpot.stages.pack.build import subgraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = ["Maker", "SampleRecord"]

_MIX = 16
"""Influence clusters mixed into a record."""


@dataclass(frozen=True)
class SampleRecord:
    """A record without features; n nodes, o outputs, the outputs first.

    Attributes
    ----------
    n_id : i4[n], ids of the graph, by hop.
    num_sampled_nodes : i4[hops].
    indptr, indices : i4[n + 1], i4[e], row = destination, local ids, no self-loops.
    deg : i4[n] or f4[n], of the whole graph, or sums of weights.
    weight : f4[e], or None where the graph has none.
    y : i8[o], -1 unlabelled.
    """

    n_id: NDArray[np.int32]
    num_sampled_nodes: NDArray[np.int32]
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    deg: NDArray[Any]
    weight: NDArray[np.float32] | None
    y: NDArray[np.int64]


class Maker:
    """Makes records of any outputs of one graph.

    Parameters
    ----------
    graph : as ingested.
    """

    def __init__(self, graph: Reader) -> None:
        indptr, indices = np.asarray(graph.array("indptr")), np.asarray(graph.array("indices"))
        weight = np.asarray(graph.array("weight")) if graph.has("weight") else None
        self._walk = walk(indptr, weight, self_loops=True, alpha=ALPHA, eps=EPS)
        self._csr = indptr, indices, frozen(np.empty(0, np.float32)) if weight is None else weight
        self._y = np.asarray(graph.array("y"))
        self._local = np.full(len(indptr) - 1, -1, np.int32)

    def records(self, outputs: NDArray[np.int32], most: int, seed: int) -> list[SampleRecord]:
        """Records of sorted ids `outputs`, of at most `most` of them each; every output stands in
        one.
        """
        top, pairs, links = self._influence(outputs)
        count, cap = balanced(len(outputs), most)
        mix = max(1, min(_MIX, cap // _MIX))
        members, ptr = grouped(
            by_influence(pairs, links, len(outputs), count, cap, mix, seed), count
        )
        n_id, n_ptr = record_nodes(outputs, members, ptr, top, len(self._local))
        spans = zip(pairwise(ptr.tolist()), pairwise(n_ptr.tolist()), strict=True)
        return [self._record(n_id[c:d], np.sort(outputs[members[a:b]])) for (a, b), (c, d) in spans]

    def _influence(self, outputs: NDArray[np.int32]) -> tuple[Any, Any, Any]:
        """Largest entries of every output, pairs by overlap and links by common entries."""
        position = np.full(len(self._local), -1, np.int32)
        position[outputs] = np.arange(len(outputs), dtype=np.int32)
        shape = (len(outputs), TOP_K), (len(outputs), PAIRS)
        top, top_value = np.empty(shape[0], np.int32), np.empty(shape[0], np.float32)
        pair, pair_value = np.empty(shape[1], np.int32), np.empty(shape[1], np.float32)
        push_top(
            *self._csr,
            self._walk.spread,
            self._walk.settle,
            outputs,
            ALPHA,
            position,
            *workspace(self._walk.threshold),
            top,
            top_value,
            pair,
            pair_value,
        )
        there = pair >= 0
        at = np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int64)
        return (
            top,
            overlaps(at, pair[there], pair_value[there]),
            shared(top, top_value, len(self._local)),
        )

    def _record(self, nodes: NDArray[np.int32], outputs: NDArray[np.int32]) -> SampleRecord:
        block = np.zeros(len(nodes), np.int32)
        n_id, block_ptr, indptr, indices, _, _, weight, deg_w = subgraph(
            nodes, outputs, block, 1, *self._csr, self._local
        )
        whole = self._csr[0]
        weighted = self._csr[2].size > 0
        deg = (
            deg_w.astype(np.float32)
            if weighted
            else (whole[n_id + np.int64(1)] - whole[n_id]).astype(np.int32)
        )
        return SampleRecord(
            n_id=n_id,
            num_sampled_nodes=(block_ptr[:, -1] - block_ptr[:, 0]).astype(np.int32),
            indptr=indptr.astype(np.int32),
            indices=indices,
            deg=deg,
            weight=weight if weighted else None,
            y=self._y[n_id[: len(outputs)]].astype(np.int64),
        )
