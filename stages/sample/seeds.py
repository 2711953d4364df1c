"""Which outputs are sampled together: a new dealing in every round, each output once in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.grouping import at_random, grouped
from stockpot.stages.influence.permutation import permutation, scramble

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SEEDS", "dealt"]

SEEDS = ("random", "community")


def dealt(
    count: int, records: int, seed: int, part: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the outputs, record by record and rising inside each, and where each record
    begins.

    Records differ by one output at most. O(count log count).

    Parameters
    ----------
    count : outputs. records : from 1 to `count`. seed : the round.
    part : int[count], community of each output: a record then takes outputs that follow each other
        by (part, random number of the round), from a place of the round's own on, so that records
        of other rounds begin elsewhere. Parts whose numbers are near are near in the graph, and so
        are records whose numbers are. None: drawn evenly.

    Returns
    -------
    tuple of i8[count], i8[records + 1]
    """
    if part is None:
        return grouped(at_random(count, records, seed), records)
    shuffled = permutation(count, seed)
    listed = shuffled[np.argsort(np.asarray(part)[shuffled], kind="stable")]
    begin = int(scramble(np.array([seed]), count)[0]) % count if seed else 0
    record = np.empty(count, np.int32)
    record[np.roll(listed, -begin)] = np.arange(count) * records // count
    return grouped(record, records)
