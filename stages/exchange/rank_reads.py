"""What ranks read, exchange and would read alone, for models of any depth: the figures a choice
between the two needs.

Cooperating ranks read every row of a record once and exchange what they do not own. Alone, each
would read all that its own outputs reach, rows that others read too (arXiv 2310.12403, sections 2
and 3: independent mini-batches of the same outputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.exchange.rank_partition import edges_of, owned
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.exchange.halo_plan import Links
    from stockpot.stages.pack.record import Record

__all__ = ["Reads", "feature_bytes", "reached", "reads", "received_by_level"]


@njit(cache=True, nogil=True)
def _step(
    rows: NDArray[np.int32],
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    seen: NDArray[np.bool_],
    out: NDArray[np.int32],
) -> int:
    """Append what `rows` read and was not seen to `out`, and mark it; how many."""
    end = 0
    for i in rows:
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if not seen[j]:
                seen[j] = True
                out[end] = j
                end += 1
    return end


def reached(record: Record, ranks: int, rank: int, most: int) -> list[NDArray[np.int32]]:
    """Rows of a record that the outputs of one rank reach by d edges and not by fewer, for d = 0 ..
    `most`.

    Each layer by its own edges where it has some. O(nodes + edges).
    """
    mine = owned(record.block_ptr, ranks, rank)
    found = [np.arange(int(mine.start[0]), int(mine.stop[0]), dtype=np.int32)]
    seen = np.zeros(record.num_nodes, np.bool_)
    seen[found[0]] = True
    queue = np.empty(record.num_nodes, np.int32)
    edges = edges_of(record)
    for depth in range(most):
        rows = np.concatenate(found) if record.layered else found[-1]
        size = 0
        if not record.layered or depth < len(edges):
            at = edges[min(depth, len(edges) - 1)]
            size = _step(rows, frozen(at.indptr), frozen(at.indices), seen, queue)
        found.append(np.sort(queue[:size]))
    return found


@dataclass(frozen=True)
class Reads:
    """What a model of d layers reads, for d = 0 .. most: i8[most + 1] each.

    Attributes
    ----------
    rows : whose node columns are read; those within d edges, so layer l computes the rows of depth
        l.
    edges : of the rows that are computed, by all layers once; of form "layers" those of each.
    features : bytes of the codes of the rows.
    """

    rows: NDArray[np.int64]
    edges: NDArray[np.int64]
    features: NDArray[np.int64]

    def __add__(self, other: Reads) -> Reads:
        return Reads(
            self.rows + other.rows, self.edges + other.edges, self.features + other.features
        )


def reads(record: Record, ranks: int, most: int) -> tuple[Reads, Reads]:
    """What all ranks read of one record: (together, alone), each summed over the ranks.

    Together: rows of hops <= d, each read by its owner. Alone: what the outputs of each rank reach
    in d edges, which processes read that share no row. O(ranks * (nodes + edges)).
    """
    ends = np.concatenate([[0], np.cumsum(record.num_sampled_nodes, dtype=np.int64)])
    hops = [np.arange(a, b) for a, b in pairwise(ends)]
    hops = (hops + [hops[0][:0]] * most)[: most + 1]
    alone = [_read(record, reached(record, ranks, rank, most)) for rank in range(ranks)]
    return _read(record, hops), reduce(Reads.__add__, alone)


def _read(record: Record, levels: Sequence[NDArray[Any]]) -> Reads:
    """Of the rows of each level and those of all before."""
    lengths = _code_bytes(record)
    sizes = [np.diff(edges.indptr).astype(np.int64) for edges in edges_of(record)]
    edges = [0]
    for depth in range(len(levels) - 1):
        if not record.layered:
            mine = levels[depth]
            edges.append(edges[-1] + int(sizes[0][mine].sum()))
        elif depth < len(sizes):
            mine = np.concatenate(levels[: depth + 1])
            edges.append(edges[-1] + int(sizes[depth][mine].sum()))
        else:
            edges.append(edges[-1])
    return Reads(
        rows=np.cumsum([level.size for level in levels]),
        edges=np.array(edges, np.int64),
        features=np.cumsum([int(lengths[level].sum()) for level in levels]),
    )


def _code_bytes(record: Record) -> NDArray[np.int64]:
    """i8[n], bytes of the codes of each row."""
    if record.code_indptr is not None:
        lengths = np.diff(record.code_indptr).astype(np.int64)
    else:
        lengths = np.full(
            record.num_nodes, record.codes.shape[1] if record.codes.ndim > 1 else 0, np.int64
        )
    if record.codes_1 is not None and record.codes_1_rows is not None:
        lengths[record.codes_1_rows] += record.codes_1.shape[1]
    return lengths


def received_by_level(found: Sequence[Links], most: int) -> NDArray[np.int64]:
    """i8[most]: rows that cross for the layer that computes hops <= h, over all ranks."""
    used = np.concatenate([link.used for link in found])
    return np.array([int((used >> h & 1).sum()) for h in range(most)], np.int64)


def feature_bytes(record: Record, layers: int) -> int:
    """Bytes of the codes of a record that a model of `layers` layers reads."""
    ends = np.cumsum(record.num_sampled_nodes)
    return int(_code_bytes(record)[: ends[min(layers, ends.size - 1)]].sum())
