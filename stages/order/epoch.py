"""The records of one epoch in order: a function of method, order artifact, seed and epoch, with no
history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.permutation import permutation, scramble

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    window: int = 0,
    mix: int = 1,
) -> NDArray[np.int32]:
    """Every record once; of the epoch's round, where there are several.

    - "label": the tour, entered at a record and walked in a direction that are drawn for each
        epoch.
    - "sample": each record drawn among those left with probability ~ its distance from the one
      before, carried over between epochs. The last record of each epoch is fixed by (seed, epoch)
      alone, so that the draw of an epoch needs no earlier one, and a run resumes anywhere. With
      several rounds the epoch before had other records, so the first is drawn evenly.
    - "shuffle": a permutation of its own for each epoch.
    - "overlap": the tour, entered and walked as that of "label", or, for a window of w, cut into
      runs of w records, begun at another record in every epoch; the runs are shuffled, and walked
      forwards or backwards: neighbours in the tour mostly stay neighbours. A window of 1 is a
      shuffle, one of R or more a tour entered anywhere. `mix` runs (without a window: that many
      parts of the tour) are walked side by side, a record of each in turn.

    What is drawn for a whole tour is drawn once for all rounds: for epochs 0 to rounds - 1, for the
    next rounds epochs, and so on. Load plans fix it as seed 0 draws it first: as the tour stands,
    for "overlap".

    O(R) ("sample": O(R^2)).

    Parameters
    ----------
    method : label | sample | shuffle | overlap
    tour : i4[R] for "label" and "overlap", else not looked at
    distance : f8[R, R] for "sample", else not looked at
    num_records : R, in a round
    seed, epoch : not negative
    rounds : sets of records used in turn
    window, mix : records in a run of "overlap", 0 for all; runs that are walked side by side

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
        return _entered(np.asarray(tour)[::-1], _draw(seed, epoch // rounds))
    if method == "overlap" and tour is not None:
        if window:
            return _side_by_side(_windows(np.asarray(tour), window, _draw(seed, epoch)), mix)
        entered = _entered(np.asarray(tour), _draw(seed, epoch // rounds) - _draw(0, 0))
        return _side_by_side(np.array_split(entered, mix), mix)
    if method == "sample" and distance is not None:
        from stockpot.stages.order.draw import draw_chain

        uniform = (scramble(np.arange(num_records), _draw(seed, epoch)) >> np.uint64(11)) * 2.0**-53
        before = _last(seed, epoch - 1, num_records) if epoch > 0 and rounds == 1 else -1
        return draw_chain(np.asarray(distance), uniform, before, _last(seed, epoch, num_records))
    raise ValueError(
        f"order method {method!r} is unknown or lacks its array; label, sample, overlap, shuffle "
        f"are known"
    )


def _entered(tour: NDArray[np.int32], drawn: int) -> NDArray[np.int32]:
    """The closed tour begun at another record, backwards where `drawn` is odd; as it is for 0."""
    walked = tour[::-1] if drawn & 1 else tour
    return np.roll(walked, -((drawn >> 1) % len(tour))).astype(np.int32)


def _windows(tour: NDArray[np.int32], window: int, seed: int) -> list[NDArray[np.int32]]:
    count = -(-len(tour) // window)
    entered = np.roll(tour, -(seed % len(tour)))
    turned = scramble(np.arange(count), seed) & np.uint64(1)
    runs = [entered[w * window : (w + 1) * window] for w in range(count)]
    return [runs[w][::-1] if turned[w] else runs[w] for w in permutation(count, seed)]


def _side_by_side(runs: Sequence[NDArray[np.int32]], mix: int) -> NDArray[np.int32]:
    """All runs, `mix` of them at a time: their first records, then their second ones, and so on."""
    sizes = [len(run) for run in runs]
    run = np.repeat(np.arange(len(runs)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    return np.concatenate(runs)[np.lexsort((run, place, run // mix))].astype(np.int32)


def _draw(seed: int, epoch: int) -> int:
    return int(scramble(np.array([epoch]), seed)[0])


def _last(seed: int, epoch: int, num_records: int) -> int:
    return int(scramble(np.array([epoch]), seed ^ 0x5EED)[0]) % num_records
