"""Rows of a CSR as sequences whose shared prefixes are known: what an LSTM over neighbours steps
through, each once.

Neighbours are read by falling degree in the whole graph, ties by id: a record, a joined step and
the whole graph give a row the same order. Source: arXiv 1906.03707, section 3 (sequential
aggregation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.hag.hag import csr_crc

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Sequences", "Trie", "build_trie", "degree_rank", "read_order"]


def read_order(deg: NDArray[Any], ids: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Rank i8[n] of nodes by falling degree, ties by id (by position where None), then by position.
    O(n log n).
    """
    rank = np.empty(len(deg), np.int64)
    by_id = np.arange(len(deg)) if ids is None else ids
    rank[np.lexsort((by_id, -np.asarray(deg, np.int64)))] = np.arange(len(deg))
    return rank


class Sequences:
    """The prefix trie of a CSR's rows as tensors, in the place of a sparse matrix in
    `stockpot.stages.step.Adj`.

    Parameters
    ----------
    indptr, indices : i4 | i8 [rows + 1], [E]. cols : columns of the CSR.
    rank : i8[cols], a permutation: the one order in which every row is read, see `read_order`.
    moved : brings a tensor to another device; None: the CPU.

    Attributes
    ----------
    shape : (rows, cols).
    column : i8[P], last column of every prefix, by length.
    parent : for every length from 2, i8, the place of the prefix one shorter among those of its
        length.
    sizes : prefixes of every length.
    out : i8[rows], the prefix that is the whole row; P where the row is empty.
    steps, plain_steps : prefixes, P, and entries: what is stepped through with sharing and without.
    """

    def __init__(
        self,
        indptr: NDArray[Any],
        indices: NDArray[Any],
        cols: int,
        rank: NDArray[np.int64],
        moved: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        trie = build_trie(indptr, indices, cols, rank=rank)
        ends = trie.level_ptr

        def tensor(values: NDArray[Any]) -> Tensor:
            whole = torch.from_numpy(values.astype(np.int64))
            return whole if moved is None else moved(whole)

        self.shape = (trie.num_rows, cols)
        self.steps, self.plain_steps = trie.steps, trie.plain_steps
        self.sizes = tuple(np.diff(ends).tolist())
        self.column = tensor(trie.column)
        levels = zip(ends[:-2].tolist(), ends[1:-1].tolist(), ends[2:].tolist(), strict=True)
        self.parent = [tensor(trie.parent[start:stop] - before) for before, start, stop in levels]
        self.out = tensor(np.where(trie.out < 0, trie.steps, trie.out))

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [self.column, *self.parent, self.out]

    def lstm(self, gates: Tensor, weight: Tensor) -> Tensor:
        """Last hidden state of an LSTM over every row, 0 where it is empty: f[rows, dim], with its
        gradient.

        Parameters
        ----------
        gates : f[cols, 4 dim], what a column alone adds to input, forget, cell and output gate,
            biases included.
        weight : f[4 dim, dim], of the hidden state, as `torch.nn.LSTM.weight_hh_l0`.

        Returns
        -------
        O(steps dim^2) time in as many dense products as the longest row has entries; O(steps dim)
        memory.
        """
        hidden: list[Tensor] = []
        state: Tensor | None = None
        cell: Tensor | None = None
        read = gates.index_select(0, self.column).split(self.sizes) if self.sizes else ()
        for level, own in enumerate(read):
            both = own
            if level:
                assert state is not None
                assert cell is not None
                parent = self.parent[level - 1]
                both = own + torch.mm(state, weight.t()).index_select(0, parent)
                cell = cell.index_select(0, parent)
            inlet, forget, new, outlet = both.chunk(4, 1)
            fresh = inlet.sigmoid() * new.tanh()
            cell = fresh if cell is None else forget.sigmoid() * cell + fresh
            state = outlet.sigmoid() * cell.tanh()
            hidden.append(state)
        empty = gates.new_zeros((1, weight.shape[1]))
        return torch.cat([*hidden, empty]).index_select(0, self.out)


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
        """Aggregations of two and more without sharing for each one with it, the measure of the
        paper.
        """
        rows, first = (
            int((self.out >= 0).sum()),
            int(self.level_ptr[min(1, len(self.level_ptr) - 1)]),
        )
        return max(1, self.plain_steps - rows) / max(1, self.steps - first)


def degree_rank(indices: NDArray[Any], num_nodes: int) -> NDArray[np.int64]:
    """Rank of each column by descending number of entries, ties by id: rows in this order share
    long prefixes.
    """
    rank = np.empty(num_nodes, np.int64)
    rank[np.argsort(-np.bincount(indices, minlength=num_nodes), kind="stable")] = np.arange(
        num_nodes
    )
    return rank


def build_trie(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    num_nodes: int | None = None,
    *,
    rank: NDArray[Any] | None = None,
) -> Trie:
    """Trie of the rows of a CSR, each read in the order of `rank`. O(E log E).

    Parameters
    ----------
    indptr, indices : i8 | i4 [rows + 1], i8 | i4 [E]; a repeated column is repeated in the
        sequence.
    num_nodes : columns of the CSR; as many as rows by default.
    rank : i8[num_nodes], a permutation: the one order in which every row is read; `degree_rank` by
        default.
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
