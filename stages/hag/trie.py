"""A prefix trie of the rows of a CSR: an order-dependent aggregator computes each shared prefix once.

With no limit on its size it is the HAG of fewest aggregations for sequential aggregators: one for each distinct prefix
of two columns and more (arXiv 1906.03707). It is as deep as the longest row, so sums
are better served by `stockpot.stages.hag.search`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.hag.hag import Hag, csr_crc, plain
from stockpot.stages.hag.rows import merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Trie", "build_trie", "degree_rank", "trie_hag"]


@dataclass(frozen=True, eq=False)
class Trie:
    """Distinct prefixes of the ordered rows of a CSR, by length.

    Attributes
    ----------
    num_rows, num_nodes : rows and columns of the CSR.
    level_ptr : i8[longest row + 1], prefixes of k + 1 columns: level_ptr[k]..level_ptr[k + 1].
    parent : i4[P], the prefix one shorter, of the level before; -1 in the first level.
    column : i4[P], the last column of the prefix.
    out : i4[num_rows], the prefix that is the whole row; -1 where a row is empty.
    crc : crc32c of the CSR (`csr_crc`).
    plain_steps : entries of the CSR, the steps a sequential aggregator takes without sharing.
    """

    num_rows: int
    num_nodes: int
    level_ptr: NDArray[np.int64]
    parent: NDArray[np.int32]
    column: NDArray[np.int32]
    out: NDArray[np.int32]
    crc: int
    plain_steps: int

    @property
    def steps(self) -> int:
        """Steps of the aggregator: one for each distinct prefix."""
        return len(self.column)

    @property
    def adds_ratio(self) -> float:
        """Aggregations of two and more without sharing for each one with it, the measure of the paper."""
        rows, first = int((self.out >= 0).sum()), int(self.level_ptr[min(1, len(self.level_ptr) - 1)])
        return max(1, self.plain_steps - rows) / max(1, self.steps - first)


def degree_rank(indices: NDArray[Any], num_nodes: int) -> NDArray[np.int64]:
    """Rank of each column by descending number of entries, ties by id: rows in this order share long prefixes."""
    rank = np.empty(num_nodes, np.int64)
    rank[np.argsort(-np.bincount(indices, minlength=num_nodes), kind="stable")] = np.arange(num_nodes)
    return rank


def build_trie(
    indptr: NDArray[Any], indices: NDArray[Any], num_nodes: int | None = None, *, rank: NDArray[Any] | None = None
) -> Trie:
    """Trie of the rows of a CSR, each read in the order of `rank`. O(E log E).

    Parameters
    ----------
    indptr, indices : i8 | i4 [rows + 1], i8 | i4 [E]; a repeated column is repeated in the sequence.
    num_nodes : columns of the CSR; as many as rows by default.
    rank : i8[num_nodes], a permutation: the one order in which every row is read; `degree_rank` by default.
    """
    num_rows = len(indptr) - 1
    columns = num_rows if num_nodes is None else num_nodes
    order = degree_rank(indices, columns) if rank is None else np.asarray(rank, np.int64)
    ptr = np.asarray(indptr, np.int64)
    lengths = ptr[1:] - ptr[:-1]
    row = np.repeat(np.arange(num_rows), lengths)
    sequence = np.asarray(indices, np.int64)[np.lexsort((order[indices], row))]
    level_ptr, parents, last = [0], [], []
    prefix = np.full(num_rows, -1, np.int64)
    alive = np.flatnonzero(lengths)
    position = 0
    while len(alive):
        key = (prefix[alive] + 1) * columns + order[sequence[ptr[alive] + position]]
        first, inverse = np.unique(key, return_index=True, return_inverse=True)[1:]
        parents.append(prefix[alive[first]])
        last.append(sequence[ptr[alive[first]] + position])
        prefix[alive] = level_ptr[-1] + inverse
        level_ptr.append(level_ptr[-1] + len(first))
        position += 1
        alive = alive[lengths[alive] > position]
    return Trie(
        num_rows,
        columns,
        level_ptr=np.array(level_ptr, np.int64),
        parent=np.concatenate([np.empty(0, np.int64), *parents]).astype(np.int32),
        column=np.concatenate([np.empty(0, np.int64), *last]).astype(np.int32),
        out=prefix.astype(np.int32),
        crc=csr_crc(indptr, indices),
        plain_steps=len(indices),
    )


def trie_hag(trie: Trie, indptr: NDArray[Any], indices: NDArray[Any]) -> Hag:
    """The same trie as a HAG for sums: one aggregation node for each prefix of two columns and more. O(E log E)."""
    skip = int(trie.level_ptr[min(1, len(trie.level_ptr) - 1)])
    place = np.r_[trie.column[:skip], trie.num_nodes + np.arange(trie.steps - skip)]  # prefix -> row of the buffer
    pairs = np.stack([place[trie.parent[skip:]], trie.column[skip:]], 1)
    ptr, columns, weight = merged(np.arange(len(pairs) + 1) * 2, pairs.ravel(), trie.num_nodes + len(pairs))
    full = trie.out >= 0
    flat = plain(indptr, indices, trie.num_nodes)
    return Hag(
        trie.num_rows,
        trie.num_nodes,
        level_ptr=trie.level_ptr[1:] - skip if len(trie.level_ptr) > 1 else trie.level_ptr,
        indptr=ptr,
        indices=columns,
        out_indptr=np.r_[0, np.cumsum(full)],
        out_indices=place[trie.out[full]].astype(np.int32),
        weight=weight,
        out_weight=None,
        crc=trie.crc,
        plain_reads=flat.plain_reads,
        plain_adds=flat.plain_adds,
    )
