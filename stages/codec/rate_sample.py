"""The part of a graph that rate control measures: outputs, all they aggregate over `layers` hops,
and no more rows.

Small graphs are measured whole. Of large ones as many outputs are drawn as the rows allow, in a
seeded order, and no node has more than `fanout` neighbours: the same ones whichever output reaches
it, so that outputs share surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.splitmix import GOLDEN
from stockpot.stages.kernels.splitmix_kernel import mix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Sample", "draw"]


@dataclass(frozen=True)
class Sample:
    """A subgraph in local ids.

    Attributes
    ----------
    n_id : i8[n], ids in the graph, ascending.
    hops_left : u1[n], aggregations whose result is known here: `layers` at outputs, 0 where only
        the features count.
    indptr, indices : i8[n + 1], i4[entries], CSR by local ids; rows with `hops_left` 0 are empty.
    train, valid : i4, outputs by local id, ascending.
    """

    n_id: NDArray[np.int64]
    hops_left: NDArray[np.uint8]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    train: NDArray[np.int32]
    valid: NDArray[np.int32]

    @property
    def outputs(self) -> NDArray[np.int32]:
        """`train`, then `valid`."""
        return np.concatenate([self.train, self.valid])


@njit(cache=True)
def _neighbour(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], v: int, k: int, count: int
) -> int:
    """Neighbour k of the `count` that node v has here: all of them, or a systematic sample with a
    start of its own.
    """
    start, degree = indptr[v], indptr[v + 1] - indptr[v]
    if degree <= count:
        return indices[start + k]
    shift = mix64(np.uint64(v) + np.uint64(GOLDEN)) >> np.uint64(11)
    u = np.float64(shift) / 9007199254740992.0
    return indices[start + min(degree - 1, np.int64((u + k) * degree / count))]


@njit(cache=True)
def _reach(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    outputs: NDArray[np.int64],
    layers: int,
    fanout: int,
    most_rows: int,
    reached: NDArray[np.uint8],
) -> int:
    """Walk from outputs in order until more than `most_rows` nodes are reached; the number of
    outputs that fit.

    reached : u1[N], zeros; 1 + hops left of every node, of the outputs that fit and of the one that
        did not.
    """
    rows = 0
    stack = [(np.int64(0), np.int64(0))]
    stack.clear()
    for i in range(len(outputs)):
        stack.append((np.int64(outputs[i]), np.int64(layers)))
        while stack:
            v, left = stack.pop()
            if reached[v] >= left + 1:
                continue
            if reached[v] == 0:
                rows += 1
                if rows > most_rows and i > 0:
                    return i
            reached[v] = left + 1
            if left:
                count = min(fanout, indptr[v + 1] - indptr[v])
                for k in range(count):
                    node = np.int64(_neighbour(indptr, indices, v, k, count))
                    stack.append((node, left - 1))
    return len(outputs)


@njit(cache=True)
def _rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    n_id: NDArray[np.int64],
    local_ptr: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Neighbours, by their ids in the graph, of the rows that are not empty."""
    for i in range(len(n_id)):
        count = local_ptr[i + 1] - local_ptr[i]
        for k in range(count):
            out[local_ptr[i] + k] = _neighbour(indptr, indices, n_id[i], k, count)


def draw(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    train: NDArray[np.integer],
    valid: NDArray[np.integer],
    *,
    layers: int,
    most_outputs: int,
    most_rows: int,
    fanout: int,
    seed: int = 0,
) -> Sample:
    """Sample of a graph around at most `most_outputs` outputs, half of them training and half
    validation nodes.

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[nnz], CSR, row = destination; may be memory maps, of which rows
        are read.
    train, valid : ids, disjoint, neither empty.
    most_rows : nodes, at least one output of each kind is drawn whatever it reaches.
    fanout : most neighbours of a node.

    Returns
    -------
    The sample; the same for the same arguments. O(rows fanout) time, 2 bytes a node of the graph
    beside it.
    """
    nodes = len(indptr) - 1
    order = _interleaved(np.asarray(train), np.asarray(valid), most_outputs, seed)
    reached = np.zeros(nodes, np.uint8)
    fit = _reach(indptr, indices, order, layers, fanout, most_rows, reached)
    if fit < len(order):
        order = order[: max(2, fit)]
        reached[:] = 0
        _reach(indptr, indices, order, layers, fanout, nodes, reached)
    n_id = np.flatnonzero(reached)
    hops_left = reached[n_id] - np.uint8(1)
    degree = np.minimum(indptr[n_id + 1] - indptr[n_id], fanout)
    degree[hops_left == 0] = 0
    local_ptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
    neighbours = np.empty(local_ptr[-1], np.int64)
    _rows(indptr, indices, n_id, local_ptr, neighbours)
    chosen = np.sort(order)
    local = np.searchsorted(n_id, chosen).astype(np.int32)
    is_train = np.isin(chosen, train, assume_unique=True)
    return Sample(
        n_id=n_id,
        hops_left=hops_left,
        indptr=local_ptr,
        indices=np.searchsorted(n_id, neighbours).astype(np.int32),
        train=local[is_train],
        valid=local[~is_train],
    )


def _interleaved(
    train: NDArray[np.integer], valid: NDArray[np.integer], most: int, seed: int
) -> NDArray[np.int64]:
    """Train and valid in a seeded order each, in turn; where one ends before its half, the other
    goes on.
    """
    rng = np.random.default_rng(seed)
    # Of long lists a sample is permuted, twice as long as can be used.
    parts = [
        ids if len(ids) <= 4 * most else ids[np.unique(rng.integers(0, len(ids), 2 * most))]
        for ids in (train, valid)
    ]
    parts = [rng.permutation(ids.astype(np.int64)) for ids in parts]
    rank = np.concatenate([2 * np.arange(len(parts[0])), 2 * np.arange(len(parts[1])) + 1])
    return np.concatenate(parts)[np.argsort(rank, kind="stable")][:most]
