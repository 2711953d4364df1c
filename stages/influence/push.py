"""Personalized PageRank rows by push with the k largest entries of each, the same for any order of
the seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TOUCHED", "push_top", "workspace"]

TOUCHED = 1e-300
"""Marks "already on the list": so far below any threshold that 10**20 visits do not add up to
one."""
LEAST = 1e-280
"""Smallest threshold: below it the marks themselves would be pushed as mass is, and found above it
again for ever."""


def workspace(
    threshold: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Dense arrays of one worker: residual and threshold side by side, estimates, and three lists
    of nodes.

    36 to 48 bytes a node (the lists are rings, so a power of two). They are clean between calls of
    `push_top`, so one workspace serves any number of them. Thresholds below `LEAST` are that.
    """
    n = len(threshold)
    state = np.zeros((n, 2), np.float64)
    state[:, 1] = np.maximum(threshold, LEAST)
    return state, np.zeros(n, np.float64), np.empty((3, 1 << n.bit_length()), np.int32)


@njit(cache=True, nogil=True)
def _better(value: float, node: int, other_value: float, other_node: int) -> bool:
    return value > other_value or (value == other_value and node < other_node)


@njit(cache=True, nogil=True)
def _insert(
    values: NDArray[np.float64], nodes: NDArray[np.int32], count: int, value: float, node: int
) -> int:
    """Insert into a list kept by falling value, ties by rising id; returns the new length (at most
    len(values)).
    """
    one = np.uint64(1)
    at = np.uint64(count)
    if count == len(values):
        at -= one
        if not _better(value, node, values[at], nodes[at]):
            return count
    else:
        count += 1
    while at > np.uint64(0) and _better(value, node, values[at - one], nodes[at - one]):
        values[at] = values[at - one]
        nodes[at] = nodes[at - one]
        at -= one
    values[at] = value
    nodes[at] = node
    return count


@njit(cache=True, nogil=True)
def _push(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    spread: NDArray[np.float64],
    settle: NDArray[np.float64],
    seed: int,
    alpha: float,
    state: NDArray[np.float64],
    p: NDArray[np.float64],
    lists: NDArray[np.int32],
) -> tuple[np.int64, np.int64]:
    """Push from one seed until every residual is below its threshold; returns (nodes with an
    estimate, nodes touched).

    A node is queued exactly while its residual is at or above the threshold, so no flag is needed:
    it enters when an addition carries it across, and leaves with residual zero. Both lists are
    written at their end on every visit and only then grown or not: whether a node is new is a coin
    toss that no branch predictor wins.
    """
    # Unsigned: numba asks of any other index whether it counts from the end, which took a quarter
    # of the time.
    ring, support, touched = lists[0], lists[1], lists[2]
    mask, one = np.uint64(len(ring) - 1), np.uint64(1)
    weighted = len(weight) > 0
    state[seed, 0] = alpha
    touched[0] = seed
    ring[0] = seed
    head, tail = np.uint64(0), one
    num_support, num_touched = np.uint64(0), one
    while head != tail:
        w = np.uint64(ring[head])
        head = (head + one) & mask
        mass = state[w, 0]
        state[w, 0] = TOUCHED
        if p[w] == 0.0:
            support[num_support] = w
            num_support += one
        p[w] += mass * settle[w]
        share = mass * spread[w]
        for e in range(np.uint64(indptr[w]), np.uint64(indptr[w + one])):
            v = np.uint64(indices[e])
            old = state[v, 0]
            new = old + (share * weight[e] if weighted else share) + TOUCHED
            limit = state[v, 1]
            state[v, 0] = new
            touched[num_touched] = v
            num_touched += np.uint64(old == 0.0)
            ring[tail] = v
            tail = (tail + np.uint64(old < limit <= new)) & mask
    return np.int64(num_support), np.int64(num_touched)


@njit(cache=True, nogil=True)
def push_top(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    spread: NDArray[np.float64],
    settle: NDArray[np.float64],
    seeds: NDArray[np.int32],
    alpha: float,
    position: NDArray[np.int32],
    state: NDArray[np.float64],
    p: NDArray[np.float64],
    lists: NDArray[np.int32],
    top: NDArray[np.int32],
    top_value: NDArray[np.float32],
    pair: NDArray[np.int32],
    pair_value: NDArray[np.float32],
) -> None:
    """Approximate PPR of each seed, its k largest entries and its largest entries among the
    outputs.

    Estimates never exceed the exact values (of `walk`'s matrix) by more than rounding. On a
    symmetric graph exact - estimate <= eps * degree at every node; on any graph the missing mass of
    a row is the sum of its residuals / alpha. Every seed stands alone, so its results depend
    neither on the other seeds nor on how seeds are cut into calls. At most 1 / (alpha * eps) edge
    visits a seed. Source: arXiv 2212.09083, after Andersen, Chung, Lang (2006).

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E] CSR rows walked along
    weight : f4[E], or empty for weight 1 everywhere
    spread, settle : f8[N] of `Walk`
    seeds : i4[S]
    position : i4[N], position of a node among the outputs, -1 elsewhere
    state, p, lists : a `workspace` of the walk's thresholds
    top, top_value : i4[S, k], f4[S, k]: filled by falling value, ties by rising id; padded with -1,
        0
    pair, pair_value : i4[S, q], f4[S, q]: the q largest entries at other outputs, as positions;
        padded with -1, 0
    """
    k, q = top.shape[1], pair.shape[1]
    support, touched = lists[1], lists[2]
    values, nodes = np.empty(k, np.float64), np.empty(k, np.int32)
    pair_values, pair_nodes = np.empty(q, np.float64), np.empty(q, np.int32)
    for s in range(len(seeds)):
        seed = seeds[s]
        num_support, num_touched = _push(
            indptr, indices, weight, spread, settle, seed, alpha, state, p, lists
        )
        count, num_pairs = 0, 0
        for i in range(np.uint64(num_support)):
            v = np.uint64(support[i])
            value = p[v]
            p[v] = 0.0
            count = _insert(values, nodes, count, value, v)
            if q > 0 and v != seed:
                at = position[v]
                if at >= 0:
                    num_pairs = _insert(pair_values, pair_nodes, num_pairs, value, at)
        for i in range(np.uint64(num_touched)):
            state[np.uint64(touched[i]), 0] = 0.0
        for i in range(k):
            top[s, i] = nodes[i] if i < count else -1
            top_value[s, i] = values[i] if i < count else 0.0
        for i in range(q):
            pair[s, i] = pair_nodes[i] if i < num_pairs else -1
            pair_value[s, i] = pair_values[i] if i < num_pairs else 0.0
