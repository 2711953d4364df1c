"""Which record each output stands in: one grouping for every round, each of them with every output
once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.influence.mix import mix_clusters
from stockpot.stages.influence.permutation import jitter, permutation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.stage import Writer

    Pairs = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]

__all__ = ["at_random", "by_influence", "by_part", "grouped", "unions", "write_records"]


def at_random(count: int, records: int, seed: int) -> NDArray[np.int32]:
    """Record of every output, drawn evenly: i4[count]."""
    record = np.empty(count, np.int32)
    record[permutation(count, seed)] = np.arange(count) * records // count
    return record


def by_influence(
    pairs: Pairs, links: Pairs, count: int, records: int, cap: int, mix: int, seed: int
) -> NDArray[np.int32]:
    """Record of every output from influence clusters, several of them mixed into a record:
    i4[count].

    Seed 0 merges by falling overlap. Any other seed shakes the overlaps by up to a half first, so
    that another round has other clusters, still of outputs with much common influence, and deals
    them anew.

    Parameters
    ----------
    pairs, links : of `overlaps` and `shared`
    count : outputs
    records, cap : of `balanced`
    mix : clusters a record is made of, about
    """
    from stockpot.stages.influence.merge import clusters

    shaken = [(i, j, (w * jitter(len(w), seed)).astype(np.float32)) for i, j, w in (pairs, links)]
    listed, starts = clusters(
        shaken[0], shaken[1], np.arange(count, dtype=np.int32), -(-cap // mix)
    )
    record = np.empty(count, np.int32)
    record[listed] = mix_clusters(np.diff(starts), records, cap, seed)
    return record


def by_part(
    owner: NDArray[np.integer], records: int, cap: int, seed: int, most: int = 0
) -> NDArray[np.int32]:
    """Record of every output, whole parts mixed into a record where they fit: i4[O].

    Parameters
    ----------
    owner : int[O], part of each output; parts without outputs do not count
    records, cap, most : of `mix_clusters`
    """
    listed = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner)
    record = np.empty(len(owner), np.int32)
    record[listed] = mix_clusters(sizes[sizes > 0], records, cap, seed, most)
    return record


def grouped(record: NDArray[np.int32], records: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the outputs, record by record and rising inside each, and where each record
    starts.

    Returns
    -------
    tuple of i8[O], i8[records + 1]
    """
    members = np.argsort(record, kind="stable").astype(np.int64)
    return members, np.concatenate([[0], np.cumsum(np.bincount(record, minlength=records))]).astype(
        np.int64
    )


def unions(
    owner: NDArray[np.integer],
    members: NDArray[np.int64],
    ptr: NDArray[np.int64],
    sets: Sequence[NDArray[np.int32]],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Nodes of each record: those of every part it holds an output of, each once, sorted.

    Parameters
    ----------
    owner : int[O], part of each output
    members, ptr : of `grouped`
    sets : i4[nodes] of each part

    Returns
    -------
    tuple of i4[rows], i8[R + 1]
    """
    rows = []
    for start, stop in pairwise(ptr.tolist()):
        used = np.unique(owner[members[start:stop]])
        rows.append(np.unique(np.concatenate([sets[part] for part in used])))
    return np.concatenate(rows), np.concatenate(
        [[0], np.cumsum([len(row) for row in rows])]
    ).astype(np.int64)


def write_records(
    writer: Writer,
    ids: NDArray[np.int32],
    members: NDArray[np.int64],
    ptr: NDArray[np.int64],
    n_id: NDArray[np.int32],
    n_ptr: NDArray[np.int64],
) -> dict[str, Any]:
    """Write the records of all rounds, and count them: what `pack` reads.

    Parameters
    ----------
    ids : i4[outputs], all outputs, sorted
    members, ptr : i8[rounds outputs], i8[R + 1], places of each record's outputs in `ids`
    n_id, n_ptr : i4[rows], i8[R + 1], nodes of each record, sorted inside each
    """
    arrays: dict[str, NDArray[Any]] = {
        "outputs": ids[members],
        "out_ptr": ptr,
        "input_id": members,
        "n_id": n_id,
        "n_ptr": n_ptr,
    }
    for name, values in arrays.items():
        writer.array(name, values)
    return {
        "records": len(ptr) - 1,
        "outputs": len(ids),
        "rows": len(n_id),
        "max_rows": int(np.diff(n_ptr).max()),
        "replication": round(len(n_id) / len(members), 6),
    }
