"""What only tests and benchmarks ask of HAGs: a trie as one, and what is left after so many
merges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.hag.hag import Hag, plain
from stockpot.stages.hag.search.csr_rows import merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.hag.search.search import Merges
    from stockpot.stages.hag.sequence import Trie

__all__ = ["curve", "trie_hag"]


def curve(merges: Merges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Additions and reads left with the first K aggregation nodes, for every K from 0: i8[nodes +
    1] each.

    Rows that stand several times come first, the largest gain before, then the merges; each node is
    counted as it was found, before nodes of a single consumer dissolve, which changes no number of
    additions.
    """
    times, entries = merges.twins().astype(np.int64), merges.entries()
    twin = np.sort(((times - 1) * (entries - 1))[(times > 1) & (entries > 1)])[::-1]
    merge = merges.applied.astype(np.int64) - 1
    saved = np.r_[0, np.cumsum(np.r_[twin, merge])]
    return merges.plain_adds - saved, merges.plain_reads - saved + np.arange(len(saved))


def trie_hag(trie: Trie, indptr: NDArray[Any], indices: NDArray[Any]) -> Hag:
    """The same trie as a HAG for sums: one aggregation node for each prefix of two columns and
    more. O(E log E)."""
    skip = int(trie.level_ptr[min(1, len(trie.level_ptr) - 1)])
    place = np.r_[
        trie.column[:skip], trie.num_nodes + np.arange(trie.steps - skip)
    ]  # prefix -> row of the buffer
    pairs = np.stack([place[trie.parent[skip:]], trie.column[skip:]], 1)
    ptr, columns, weight = merged(
        np.arange(len(pairs) + 1) * 2, pairs.ravel(), trie.num_nodes + len(pairs)
    )
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
