"""Influence of a whole set of outputs by one push, whatever the size of the graph, and the nodes
that matter to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.push import TOUCHED
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["holding", "largest", "push_set"]


@njit(cache=True, nogil=True)
def push_set(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    leaving: NDArray[np.float64],
    entering: NDArray[np.float64],
    settle: NDArray[np.float64],
    seeds: NDArray[np.int32],
    alpha: float,
    state: NDArray[np.float64],
    p: NDArray[np.float64],
    lists: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Nodes with an estimate, in the order in which they were reached, and their estimates.

    Every seed starts with residual alpha, so estimates are sums over the set: |S| times its
    topic-sensitive PageRank. Dividing the start by |S| and every threshold too would be the same
    push.

    Two walks, by what an edge (w, v) hands on of the mass settling at w:

    - "transpose": `leaving` = spread of `Walk`, `entering` empty, the CSR the walk's own. The
      estimate of v is the mass that reaches v from the set, sum of Pi[u, v] over u in S. With
      thresholds alpha * eps * degree it is never above the exact sum, on a symmetric graph at most
      eps * degree below it, and on any graph the missing mass is the sum of the residuals / alpha.
      At most |S| / (alpha * eps) edge visits beside the degrees of the seeds.
    - "reference": `leaving` = settle, `entering` = spread / settle, the CSR transposed. The
      estimate of v is the chance that a walk from v ends in the set, sum of Pi[v, u] over u in S:
      what X <- (1 - alpha) P X + alpha T of the published code converges to, times |S|. With one
      threshold alpha * e everywhere it is never above the exact sum and at most e below it, on any
      graph; e = eps * mean degree, to be as exact as the other walk.

    A seed whose start is below its own threshold (a hub) is pushed once all the same, so no output
    goes without. Seeds are handled in the order given; other sets leave no trace. Source: arXiv
    2212.09083 section 3, by push (Andersen, Chung, Lang 2006; backward: Andersen et al. 2007)
    instead of 50 dense iterations.

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E] CSR rows along which mass is handed on
    weight : f4[E], or empty for weight 1 everywhere
    leaving, settle : f8[N]
    entering : f8[N], or empty for 1 everywhere
    seeds : i4[S], distinct
    state, p, lists : a `workspace` of the thresholds; left clean

    Returns
    -------
    tuple of i4[n], f8[n]
    """
    ring, support, touched = lists[0], lists[1], lists[2]
    mask, one, zero = np.uint64(len(ring) - 1), np.uint64(1), np.uint64(0)
    weighted, scaled = len(weight) > 0, len(entering) > 0
    num_touched, num_support, head, tail = zero, zero, zero, zero
    for seed in seeds:
        state[seed, 0] = alpha
        touched[num_touched] = seed
        num_touched += one
    # Hubs first and without queueing; then whatever stands at its threshold, each node once.
    for seed in seeds:
        if alpha >= state[seed, 1]:
            continue
        mass = state[seed, 0]
        state[seed, 0] = TOUCHED
        support[num_support] = seed
        num_support += one
        p[seed] = mass * settle[seed]
        share = mass * leaving[seed]
        for e in range(indptr[seed], indptr[seed + 1]):
            v = indices[e]
            add = share * weight[e] if weighted else share
            old = state[v, 0]
            state[v, 0] = old + (add * entering[v] if scaled else add) + TOUCHED
            touched[num_touched] = v
            num_touched += np.uint64(old == 0.0)
    for i in range(num_touched):
        v = np.uint64(touched[i])
        ring[tail] = v
        tail += np.uint64(state[v, 0] >= state[v, 1])
    while head != tail:
        w = np.uint64(ring[head])
        head = (head + one) & mask
        mass = state[w, 0]
        state[w, 0] = TOUCHED
        if p[w] == 0.0:
            support[num_support] = w
            num_support += one
        p[w] += mass * settle[w]
        share = mass * leaving[w]
        for e in range(np.uint64(indptr[w]), np.uint64(indptr[w + one])):
            v = np.uint64(indices[e])
            add = share * weight[e] if weighted else share
            old = state[v, 0]
            new = old + (add * entering[v] if scaled else add) + TOUCHED
            limit = state[v, 1]
            state[v, 0] = new
            touched[num_touched] = v
            num_touched += np.uint64(old == 0.0)
            ring[tail] = v
            tail = (tail + np.uint64(old < limit <= new)) & mask
    nodes, values = support[:num_support].copy(), np.empty(num_support, np.float64)
    for i in range(num_support):
        values[i] = p[nodes[i]]
        p[nodes[i]] = 0.0
    for i in range(num_touched):
        state[touched[i], 0] = 0.0
    return nodes, values


def largest(nodes: NDArray[np.int32], values: NDArray[np.float64], count: int) -> NDArray[np.int32]:
    """The `count` nodes of the largest values, ties by rising id."""
    return nodes[np.lexsort((nodes, -values))[:count]]


def holding(
    nodes: NDArray[np.int32], values: NDArray[np.float64], share: float, outputs: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The fewest nodes beside `outputs` that hold, together with them, a share of the values' sum.

    Largest values first, ties by rising id; `share` is at most 1.
    """
    others = ~np.isin(nodes, outputs)
    order = np.lexsort((nodes, -values, others))
    held = np.cumsum(values[order])  # one after another: sums of a fixed order
    count = int(np.searchsorted(held, share * held[-1])) + 1 if len(held) else 0
    return nodes[order[:count]]
