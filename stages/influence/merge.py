"""Clusters of outputs with much common influence: every output in exactly one, none larger than the
cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.pairs import descending
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["clusters", "forest", "join", "line", "pack_line", "roots"]


@njit(cache=True, nogil=True)
def forest(
    n: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Union-find over n items, each alone: parent, size, and linked member lists (next, tail; the
    head is the root).
    """
    own = np.arange(n).astype(np.int32)
    return own.copy(), np.ones(n, np.int32), np.full(n, -1, np.int32), own


@njit(cache=True, nogil=True)
def _find(parent: NDArray[np.int32], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def join(
    parent: NDArray[np.int32],
    size: NDArray[np.int32],
    following: NDArray[np.int32],
    tail: NDArray[np.int32],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    order: NDArray[np.int64],
    cap: int,
) -> None:
    """Join the sets of each pair, in order, where together they hold at most `cap` items: Kruskal
    with a size cap.

    The larger set absorbs the smaller (of equals, the smaller root absorbs), and its members come
    first in the list. Almost O(pairs). Source: arXiv 2212.09083, greedy merge of node-wise
    batching.
    """
    for e in order:
        a, b = _find(parent, left[e]), _find(parent, right[e])
        if a == b or size[a] + size[b] > cap:
            continue
        if size[a] < size[b] or (size[a] == size[b] and b < a):
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        following[tail[a]] = b
        tail[a] = tail[b]


@njit(cache=True, nogil=True)
def roots(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Root of every item: i4[n]."""
    out = np.empty_like(parent)
    for i in range(len(parent)):
        out[i] = _find(parent, i)
    return out


@njit(cache=True, nogil=True)
def line(
    parent: NDArray[np.int32], following: NDArray[np.int32], place: NDArray[np.int32]
) -> NDArray[np.int32]:
    """All items in one row, sets as a whole, sets by the smallest `place` of their members.

    Parameters
    ----------
    parent, following : of a forest
    place : i4[n], position of an item in some order that keeps near items near
    """
    n = len(parent)
    first = np.full(n, n + np.iinfo(np.int32).max, np.int64)
    for i in range(n):
        root = _find(parent, i)
        first[root] = min(first[root], place[i])
    out = np.empty(n, np.int32)
    at = 0
    for root in np.argsort(first, kind="mergesort"):
        if parent[root] != root:
            continue
        i = root
        while i >= 0:
            out[at] = i
            at += 1
            i = following[i]
    return out


@njit(cache=True, nogil=True)
def pack_line(
    order: NDArray[np.int32],
    parent: NDArray[np.int32],
    size: NDArray[np.int32],
    following: NDArray[np.int32],
    tail: NDArray[np.int32],
    cap: int,
) -> None:
    """Join sets that follow each other in `order` while they fit: leftovers are packed with what
    lies beside them.
    """
    seen = np.zeros(len(order), np.bool_)
    bin_ = -1
    for i in order:
        root = _find(parent, i)
        if seen[root]:
            continue
        seen[root] = True
        if size[root] >= cap:
            continue
        if bin_ >= 0 and size[bin_] + size[root] <= cap:
            parent[root] = bin_
            size[bin_] += size[root]
            following[tail[bin_]] = root
            tail[bin_] = tail[root]
        else:
            bin_ = root


def clusters(
    pairs: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    links: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    place: NDArray[np.int32],
    cap: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Cluster outputs by falling overlap, leftovers by common auxiliary nodes, the rest with what
    lies beside it.

    Three passes: Kruskal with the size cap over `pairs`; the same over `links`, which reach outputs
    that hold none of each other; then the sets that are left are laid in a row (the uncapped merge
    of both lists, so near sets are near) and packed in that order.

    Parameters
    ----------
    pairs : of `overlaps`
    links : of `shared`
    place : i4[O], where an output lies in some order that keeps near nodes near (ids will do)
    cap : most outputs in a cluster, at least 1

    Returns
    -------
    tuple of i4[O], i8[C + 1] : output positions, cluster by cluster
    """
    by_overlap, by_link = descending(pairs[2]), descending(links[2])
    sets = forest(len(place))
    join(*sets, pairs[0], pairs[1], by_overlap, cap)
    join(*sets, links[0], links[1], by_link, cap)
    near = forest(len(place))
    join(*near, pairs[0], pairs[1], by_overlap, len(place))
    join(*near, links[0], links[1], by_link, len(place))
    pack_line(line(near[0], near[2], place), *sets, cap)
    members = line(sets[0], sets[2], place)
    root = roots(sets[0])[members]
    starts = (
        np.flatnonzero(np.r_[True, root[1:] != root[:-1]]) if len(root) else np.zeros(0, np.int64)
    )
    return members, np.r_[starts, len(root)].astype(np.int64)
