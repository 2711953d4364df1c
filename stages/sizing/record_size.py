"""Which size records get: as many as learn fast, as long as they hold enough of their nodes'
neighbours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ENOUGH", "MASS_FROM", "Found", "choose"]

ENOUGH = (0.8, 0.4)
"""Share of the in-neighbours of outputs, and of their neighbours, that a record should hold, on
average."""
MASS_FROM = 0.85
"""Share held at hop 0 below which rows of a training record are corrected for the rest."""
MOST_ROWS = 4.0
"""Rows of all records of a split, as a multiple of the graph's nodes: beyond, fewer and larger
records are tried."""
WHOLE = 3.0
"""Records of the whole graph are taken, as nothing is missing in them, where their rows are at most
this many times those of the size that holds enough."""
STEP_BYTES = 512 << 20
"""Most bytes of a training step of the default model, as far as features, activations and edges
go."""
TOP_K = (16, 32, 64)
ALL = "all"
"""As a top_k: every record holds the whole graph."""
_WIDTH = 8 * 256  # floats of a row in a step: three layers of 256, twice, and their gradients


@dataclass(frozen=True)
class Found:
    """What records of a size hold, measured.

    Attributes
    ----------
    top_k, outputs, mix : the size; `ALL` for a top_k.
    held : share of in-neighbours inside the record, mean over the nodes of hops 0, 1, 2.
    records, rows : of the split; rows as far as a sample tells.
    largest : rows of the largest record. edges : of a record, on average.
    """

    top_k: int | str
    outputs: int
    mix: int
    held: tuple[float, ...]
    records: int
    rows: int
    largest: int
    edges: int

    @property
    def enough(self) -> bool:
        return all(share >= least for share, least in zip(self.held, ENOUGH, strict=False))

    @property
    def score(self) -> float:
        """How near it comes to enough."""
        return sum(min(share / least, 1.0) for share, least in zip(self.held, ENOUGH, strict=False))

    def step_bytes(self, num_features: int) -> int:
        """Bytes of a step of its largest record."""
        return self.largest * 4 * (num_features + _WIDTH) + 12 * self.edges

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "held": list(self.held)}


def choose(
    measure: Callable[[int, int, int], Found],
    whole: Callable[[int], Found],
    *,
    base: int,
    count: int,
    fewest: int,
    measurable: int,
    nodes: int,
    num_features: int,
    exact: bool = False,
    top_k: int | str = 0,
    outputs: int = 0,
    mix: int = 0,
) -> tuple[Found, list[Found]]:
    """The size to take, and all that were looked at, in order.

    From many small records to few: the first size that holds enough and costs at most `MOST_ROWS`
    rows a node of the graph and `STEP_BYTES` a step; in the end the fewest records, each of the
    whole graph. Where none is, the one that comes nearest to enough at that cost, the first of
    equals; the smallest size where even that costs more. Records of the whole graph in its stead
    where they cost at most `WHOLE` times its rows: as many records, as training lives by steps, but
    the fewest of those that `exact` says only inference reads.

    Parameters
    ----------
    measure : (top_k, outputs, mix) -> what such records hold. whole : outputs -> the same of
        records of all nodes.
    base : outputs a record to begin with. count : outputs of the split. fewest : records to end
        with.
    measurable : most outputs that `measure` can put in a record.
    nodes, num_features : of the graph. exact : no training reads them.
    top_k, outputs, mix : values that are fixed; 0: to be chosen.
    """
    last = -(-count // fewest)
    found, looked = _first_enough(
        measure, whole, _sizes(base, last, measurable, top_k, outputs), nodes, num_features, mix
    )
    if not top_k and found.top_k != ALL:
        graph = whole(last if exact and not outputs else found.outputs)
        if graph.rows <= WHOLE * found.rows and not _dear(graph, nodes, num_features):
            return graph, [*looked, graph]
    return found, looked


def _dear(found: Found, nodes: int, num_features: int) -> bool:
    return found.step_bytes(num_features) > STEP_BYTES or found.rows > MOST_ROWS * nodes


def _first_enough(
    measure: Callable[[int, int, int], Found],
    whole: Callable[[int], Found],
    sizes: Iterator[tuple[int, int | str]],
    nodes: int,
    num_features: int,
    mix: int,
) -> tuple[Found, list[Found]]:
    looked: list[Found] = []
    best: Found | None = None
    best_is_dear = False
    passed = 0
    for size, k in sizes:
        if size == passed and not isinstance(k, str):
            continue  # more neighbours are dearer still
        found = whole(size) if isinstance(k, str) else measure(k, size, mix)
        looked.append(found)
        dear = _dear(found, nodes, num_features)
        if best is None or (not dear and (best_is_dear or found.score > best.score)):
            best, best_is_dear = found, dear
        if found.enough and not dear:
            return found, looked
        if k == TOP_K[0] and found.step_bytes(num_features) > STEP_BYTES:
            break  # larger records are larger still
        passed = size if dear else passed
    assert best is not None
    return best, looked


def _sizes(
    base: int, last: int, measurable: int, top_k: int | str, outputs: int
) -> Iterator[tuple[int, int | str]]:
    """(outputs, top_k) to look at: outputs doubled from `base` to `last`, as far as they can be
    measured.
    """
    sizes = [outputs] if outputs else [base << i for i in range(64) if base << i < last] + [last]
    for size in sizes:
        if size <= max(measurable, base) or outputs:
            yield from ((size, k) for k in ((top_k,) if top_k else TOP_K))
        if size == last and not top_k:
            yield size, ALL
