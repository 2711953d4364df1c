"""A chain of records in which those near each other share many rows, so that few are read again.

Rows are all counted where the work allows, else those of an even sample of the nodes; the same
records give the same chain on any machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.permutation import scramble
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.order.bounds import ENTRIES
from stockpot.stages.sample.reuse import lru_misses

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["overlap_chain", "sampled_share"]

_PAIRS = 1 << 34
"""Most pairs of records that are counted for shared rows: about ten seconds."""
_KEPT = 0.8
"""What a row shared with a record still counts one record later: measured best of 0 to 0.95, by 1
to 8 % over 0."""
_CACHE = 0.1  # of the nodes: by which the chains are compared
_CHUNK = 1 << 22  # rows looked at in one go


def sampled_share(rows: int, records: int) -> float:
    """Share of the nodes that are counted, in (0, 1]: rows of a record that all others may have
    cost the most.
    """
    return min(1.0, ENTRIES / max(1, rows), _PAIRS / max(1, rows * records))


def overlap_chain(
    n_id: NDArray[np.integer], n_ptr: NDArray[np.int64], share: float | None = None
) -> tuple[NDArray[np.int32], str]:
    """Every record once, and where the chain is from: "greedy", or "file" where the records stand
    in a better order.

    Greedy goes from record 0 on to the unused record that shares most rows with the last ones, each
    of them counting 0.8 of the one after it; ties go to the smallest id. Where outputs were dealt
    by communities, or samples drift, the file itself is a chain, and often the better one: greedy
    leaves stragglers for its end. The chain by which an LRU cache of a tenth of the nodes misses
    fewer rows is taken. Greedy order of batches: after arXiv 2310.12403, whose batches are
    independent.

    O(R^2 + sum over nodes of (records that hold it)^2) for all nodes; 56 bytes a row counted, at
    most `ENTRIES`.

    Parameters
    ----------
    n_id, n_ptr : i4 or i8[rows], i8[R + 1], distinct nodes of each record; may be memory maps.
    share : of the nodes that are counted; None: `sampled_share`.

    Returns
    -------
    tuple of i4[R], a permutation, and its name
    """
    records = len(n_ptr) - 1
    share = sampled_share(int(n_ptr[-1] - n_ptr[0]), records) if share is None else share
    record, node = _counted(n_id, np.asarray(n_ptr), share)
    by_node = np.argsort(node, kind="stable")
    begins = np.flatnonzero(np.diff(node[by_node], prepend=-1))
    group = np.empty(len(node), np.int32)
    group[by_node] = np.repeat(
        np.arange(len(begins), dtype=np.int32), np.diff(begins, append=len(node))
    )
    ptr = np.searchsorted(record, np.arange(records + 1)).astype(np.int64)
    ends = np.append(begins, len(node)).astype(np.int64)
    found = {
        "file": np.arange(records, dtype=np.int32),
        "greedy": _greedy(ptr, group, ends, record[by_node]),
    }
    misses = {name: _misses(group, ptr, chain, len(begins)) for name, chain in found.items()}
    name = min(misses, key=lambda one: misses[one])
    return found[name], name


def _misses(
    group: NDArray[np.int32], ptr: NDArray[np.int64], chain: NDArray[np.int32], groups: int
) -> float:
    reads, begins = _ordered(group, ptr, chain)
    return lru_misses(reads, begins, groups, int(_CACHE * groups))


def _ordered(
    values: NDArray[np.int32], ptr: NDArray[np.int64], chain: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Runs of values in another order: (values, first of each run and the end)."""
    sizes = np.diff(ptr)[chain]
    begins = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    place = np.arange(begins[-1]) + np.repeat(ptr[:-1][chain] - begins[:-1], sizes)
    return values[place], begins


def _counted(
    n_id: NDArray[np.integer], n_ptr: NDArray[np.int64], share: float
) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    """(record, node) of the rows whose nodes are counted, record by record."""
    limit = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    records, nodes = [], []
    for start in range(int(n_ptr[0]), int(n_ptr[-1]), _CHUNK):
        part = np.asarray(n_id[start : min(start + _CHUNK, int(n_ptr[-1]))])
        at = np.arange(len(part)) if share >= 1.0 else np.flatnonzero(scramble(part, 0) < limit)
        records.append((np.searchsorted(n_ptr, at + start, side="right") - 1).astype(np.int32))
        nodes.append(part[at])
    return np.concatenate([np.zeros(0, np.int32), *records]), np.concatenate([n_id[:0], *nodes])


@njit(cache=True, nogil=True)
def _greedy(
    ptr: NDArray[np.int64],
    group: NDArray[np.int32],
    group_ptr: NDArray[np.int64],
    member: NDArray[np.int32],
) -> NDArray[np.int32]:
    """The chain by two lists: groups of each record, records of each group."""
    records = ptr.size - 1
    out = np.empty(records, np.int32)
    used = np.zeros(records, np.bool_)
    shared = np.zeros(records)
    at = 0
    for step in range(records):
        out[step] = at
        used[at] = True
        for r in range(records):
            shared[r] *= _KEPT
        for k in range(ptr[at], ptr[at + 1]):
            for m in range(group_ptr[group[k]], group_ptr[group[k] + 1]):
                shared[member[m]] += 1.0
        best = -1
        for r in range(records):
            if not used[r] and (best < 0 or shared[r] > shared[best]):
                best = r
        at = best
    return out
