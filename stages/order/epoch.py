"""The records of one epoch in order: a function of method, order artifact, seed and epoch, with no history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.influence.scramble import permutation, scramble

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["epoch_order"]


def epoch_order(
    method: str,
    tour: NDArray[np.int32] | None,
    distance: NDArray[np.float64] | None,
    num_records: int,
    seed: int,
    epoch: int,
    rounds: int = 1,
) -> NDArray[np.int32]:
    """Every record once; of the epoch's round, where there are several.

    - "label": the tour, entered where the seed says and walked in its direction; the same in every epoch, so that
      the step from one epoch into the next is one of the tour's.
    - "sample": each record drawn among those left with probability ~ its distance from the one before, carried over
      between epochs. The last record of each epoch is fixed by (seed, epoch) alone, so that the draw of an epoch
      needs no earlier one, and a run resumes anywhere. With several rounds the epoch before had other records, so
      the first is drawn evenly.
    - "shuffle": a permutation of its own for each epoch.

    O(R) ("sample": O(R^2)).

    Parameters
    ----------
    method : label | sample | shuffle
    tour : i4[R] for "label", else not looked at
    distance : f8[R, R] for "sample", else not looked at
    num_records : R, in a round
    seed, epoch : not negative
    rounds : sets of records used in turn

    Returns
    -------
    i4[R], a permutation

    Raises
    ------
    ValueError
        The method is none of these, or its array is missing.
    """
    if num_records == 0:
        return np.zeros(0, np.int32)
    if method == "shuffle":
        return permutation(num_records, _draw(seed, epoch)).astype(np.int32)
    if method == "label" and tour is not None:
        entry = _draw(seed, 0)
        walked = np.asarray(tour) if entry & 1 else np.asarray(tour)[::-1]
        return np.roll(walked, -((entry >> 1) % num_records)).astype(np.int32)
    if method == "sample" and distance is not None:
        from stages.order.draw import draw_chain

        uniform = (scramble(np.arange(num_records), _draw(seed, epoch)) >> np.uint64(11)) * 2.0**-53
        before = _last(seed, epoch - 1, num_records) if epoch > 0 and rounds == 1 else -1
        return draw_chain(np.asarray(distance), uniform, before, _last(seed, epoch, num_records))
    raise ValueError(f"order method {method!r} is unknown or lacks its array; expected label, sample or shuffle")


def _draw(seed: int, epoch: int) -> int:
    return int(scramble(np.array([epoch]), seed)[0])


def _last(seed: int, epoch: int, num_records: int) -> int:
    return int(scramble(np.array([epoch]), seed ^ 0x5EED)[0]) % num_records
