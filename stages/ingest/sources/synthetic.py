"""A synthetic graph is a pure function of its parameters: any block, of any size, in any order,
holds the same values.

Every value comes from a counter-based generator: the hash of (seed, stream, counter), after
splitmix64 (Steele, Lea, Flood 2014). Only integer arithmetic and IEEE additions, products and
square roots are used, so that machines agree. Nothing is kept between blocks: memory is that of a
block, and 4 bytes a node for labels and for splits.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.source_data import EdgeBlock
from stockpot.stages.ingest.sources.synthetic_source import Communities, parse
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.splitmix import GOLDEN, mixed64
from stockpot.stages.kernels.splitmix_kernel import mix64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = ["SyntheticDataSet", "open_synthetic"]

_EDGES, _OTHERS, _LABELS, _CENTROIDS, _NOISE, _NODES, _SPLITS = range(1, 8)
_U = np.uint64
_GOLDEN = _U(GOLDEN)
_LOW = _U(0xFFFFFFFF)
_SHIFT32 = _U(32)
_ZERO, _ONE, _TWO = _U(0), _U(1), _U(2)
_PIECE, _SHIFT16 = _U(0xFFFF), _U(16)
# The sum of four uniform 16-bit integers has this mean and deviation: near enough to a normal, and
# exact everywhere.
_MEAN, _SPREAD = 131070.0, math.sqrt((2.0**32 - 1.0) / 3.0)
_UNIT = 2.0**-32


@njit(cache=True, inline="always")
def _hash(key: np.uint64, counter: np.uint64) -> np.uint64:
    return mix64(key + counter * _GOLDEN)


@njit(cache=True, inline="always")
def _normal(key: np.uint64, counter: np.uint64) -> float:
    h = _hash(key, counter)
    total = (
        (h & _PIECE)
        + ((h >> _SHIFT16) & _PIECE)
        + ((h >> _SHIFT32) & _PIECE)
        + (h >> (_SHIFT16 + _SHIFT32))
    )
    return (float(total) - _MEAN) / _SPREAD


@njit(cache=True, inline="always")
def _forward(x: np.uint64, p: NDArray[np.uint64]) -> np.uint64:
    # p: bound, mask, shift, offset, two multipliers, their inverses: a bijection of [0, mask],
    # walked to [0, bound).
    while True:
        x = ((x + p[3]) * p[4]) & p[1]
        x ^= x >> p[2]
        x = (x * p[5]) & p[1]
        x ^= x >> p[2]
        if x < p[0]:
            return x


@njit(cache=True, inline="always")
def _backward(x: np.uint64, p: NDArray[np.uint64]) -> np.uint64:
    while True:
        x ^= x >> p[2]
        x = (x * p[7]) & p[1]
        x ^= x >> p[2]
        x = ((x * p[6]) - p[3]) & p[1]
        if x < p[0]:
            return x


@njit(cache=True, inline="always")
def _member(
    community: np.uint64,
    u: np.uint64,
    small: np.uint64,
    larger: np.uint64,
    power: int,
    roots: NDArray[np.float64],
) -> tuple[np.uint64, np.uint64]:
    """Rank in a community, drawn with weight (rank + 1)^(1 / power - 1) by inverting the
    integral.
    """
    one = _ONE if community < larger else _ZERO
    size = small + one
    x = 1.0 + float(u) * _UNIT * (roots[one] - 1.0)
    y = x
    for _ in range(power - 1):
        y *= x
    return min(_U(int(y) - 1), size - _ONE), size


@njit(cache=True, nogil=True)
def _draw_edges(
    start: int,
    source: NDArray[np.int32],
    target: NDArray[np.int32],
    communities: np.uint64,
    small: np.uint64,
    larger: np.uint64,
    inside: np.uint64,
    power: int,
    roots: NDArray[np.float64],
    keys: NDArray[np.uint64],
    order: NDArray[np.uint64],
) -> None:
    # The first `larger` communities have small + 1 nodes, the others `small`.
    for i in range(len(source)):
        e = _U(start + i)
        a, b = _hash(keys[0], _TWO * e), _hash(keys[0], _TWO * e + _ONE)
        here = ((a >> _SHIFT32) * communities) >> _SHIFT32
        there = here
        if (b >> _SHIFT32) >= inside:
            there = ((_hash(keys[1], e) >> _SHIFT32) * communities) >> _SHIFT32
        s, _ = _member(here, a & _LOW, small, larger, power, roots)
        t, size = _member(there, b & _LOW, small, larger, power, roots)
        if there == here and s == t:  # no self-loops: the next in rank
            t = (t + _ONE) % size
        source[i] = np.int32(_forward(s * communities + here, order))
        target[i] = np.int32(_forward(t * communities + there, order))


@njit(cache=True, nogil=True)
def _draw_labels(
    labels: NDArray[np.int32],
    communities: np.uint64,
    classes: np.uint64,
    mislabelled: np.uint64,
    labelled: np.uint64,
    key: np.uint64,
    order: NDArray[np.uint64],
    splits: NDArray[np.uint64],
) -> None:
    for v in range(len(labels)):
        h = _hash(key, _U(v))
        if _forward(_U(v), splits) >= labelled:
            labels[v] = -1
        elif (h >> _SHIFT32) < mislabelled:
            labels[v] = np.int32(((h & _LOW) * classes) >> _SHIFT32)
        else:
            labels[v] = np.int32((_backward(_U(v), order) % communities) % classes)


@njit(cache=True, nogil=True)
def _draw_features(
    start: int,
    out: NDArray[np.float32],
    communities: np.uint64,
    classes: np.uint64,
    noise: float,
    centroids_key: np.uint64,
    noise_key: np.uint64,
    order: NDArray[np.uint64],
) -> None:
    columns = _U(out.shape[1])
    for i in range(out.shape[0]):
        v = _U(start + i)
        kind = (_backward(v, order) % communities) % classes
        for j in range(out.shape[1]):
            centroid = _normal(centroids_key, kind * columns + _U(j))
            out[i, j] = np.float32(centroid + noise * _normal(noise_key, v * columns + _U(j)))


@njit(cache=True, nogil=True)
def _draw_split(
    out: NDArray[np.int32], low: np.uint64, high: np.uint64, splits: NDArray[np.uint64]
) -> int:
    found = 0
    for v in range(splits[0]):
        q = _forward(_U(v), splits)
        if low <= q < high:
            out[found] = np.int32(v)
            found += 1
    return found


def _key(seed: int, stream: int) -> np.uint64:
    return _U(mixed64((mixed64((seed + GOLDEN) % 2**64) + stream * GOLDEN) % 2**64))


def _order(nodes: int, key: np.uint64) -> NDArray[np.uint64]:
    """Parameters of a seeded bijection of [0, nodes): the hash multiplies by odd numbers and folds,
    both invertible.
    """
    bits = max(2, (nodes - 1).bit_length())
    size = 1 << bits
    drawn = [mixed64((int(key) + i * GOLDEN) % 2**64) for i in range(1, 4)]
    first, second = (number % size | 1 for number in drawn[1:])
    inverses = pow(first, -1, size), pow(second, -1, size)
    return np.array(
        [nodes, size - 1, (bits + 1) // 2, drawn[0] % size, first, second, *inverses], np.uint64
    )


def _root(value: int, power: int) -> float:
    """value^(1/power) by Newton's iteration, the same on every machine."""
    x = float(value)
    for _ in range(200):
        denominator = 1.0
        for _ in range(power - 1):
            denominator *= x
        x = ((power - 1) * x + value / denominator) / power
    return x


def _share(share: float) -> np.uint64:
    """Threshold on 32 random bits."""
    return _U(round(share * 2.0**32))


class _Features:
    sparse = False

    def __init__(self, made: Communities, order: NDArray[np.uint64]) -> None:
        self.columns = made.features
        self._made, self._order = made, order

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start:stop`: the centroid of the class of a node's community, and noise."""
        made = self._made
        out = np.empty((max(0, stop - start), self.columns), np.float32)
        keys = _key(made.seed, _CENTROIDS), _key(made.seed, _NOISE)
        _draw_features(
            start, out, _U(made.communities), _U(made.classes), made.noise, *keys, self._order
        )
        return out


class SyntheticDataSet:
    """Seeded communities with power-law degrees; see `Communities` for its parameters.

    Edge e draws its community uniformly (all have the same size, so the same weight), its source in
    it by a power law, its target in the same or another community likewise: Chung-Lu weights, O(1)
    an edge, no tables.
    """

    weighted = False

    def __init__(self, text: str, made: Communities) -> None:
        self.num_nodes, self.num_edges = made.nodes, made.edges
        self.left_out: tuple[str, ...] = ()
        self._text, self._made = text, made
        self._nodes = _order(made.nodes, _key(made.seed, _NODES))
        self._splits = _order(made.nodes, _key(made.seed, _SPLITS))

    def edges(self, most: int) -> Iterator[EdgeBlock]:
        """All edges in order, at most `most` in a block."""
        made, power = self._made, self._made.hubs + 1
        small, larger = divmod(made.nodes, made.communities)
        roots = np.array([_root(small + 1, power), _root(small + 2, power)])
        keys = np.array([_key(made.seed, _EDGES), _key(made.seed, _OTHERS)])
        sizes = _U(made.communities), _U(small), _U(larger), _share(made.inside)
        for start in range(0, made.edges, most):
            count = min(most, made.edges - start)
            source, target = np.empty(count, np.int32), np.empty(count, np.int32)
            _draw_edges(start, source, target, *sizes, power, roots, keys, self._nodes)
            yield EdgeBlock(source, target)

    def features(self) -> _Features | None:
        """Class centroids with noise, None with `features=0`."""
        return _Features(self._made, self._nodes) if self._made.features else None

    def labels(self) -> NDArray[np.int32]:
        """i4[N]: community mod classes, some drawn anew, -1 where a node is in no split."""
        made = self._made
        out = np.empty(made.nodes, np.int32)
        labelled, key = sum(made.splits.values()), _key(made.seed, _LABELS)
        sizes = _U(made.communities), _U(made.classes), _share(made.mislabelled), _U(labelled)
        _draw_labels(out, *sizes, key, self._nodes, self._splits)
        return out

    def splits(self) -> list[dict[str, NDArray[np.int32]]]:
        """One split of exactly the sizes of `Communities.splits`, of the labelled nodes."""
        found, low = {}, 0
        for name, count in self._made.splits.items():
            ids = np.empty(count, np.int32)
            drawn = _draw_split(ids, _U(low), _U(low + count), self._splits)
            assert drawn == count
            found[name], low = ids, low + count
        return [found]

    def write_node_ids(self, path: Callable[[str], Path]) -> None:
        """Nothing: nodes are numbers."""

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        """Error about `name` of this data set."""
        return BadInput(f"{self._text}: {name}: {text}", fix=fix or "correct dataset.source")


@contextmanager
def open_synthetic(reader: Reader) -> Iterator[SyntheticDataSet]:
    """The data set of a `synthetic:` source."""
    text = str(reader.facts["text"])
    yield SyntheticDataSet(text, parse(text, text.partition(":")[2]))
