"""CPU seconds to an accuracy, read from learning curves, and the rows that benchmarks print: pure
functions, no clock and no peer."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Curve", "Point", "breaks_even", "mean_curve", "mean_reached", "ratio_row", "reached"]


@dataclass(frozen=True)
class Point:
    """What a training had come to when it was judged.

    Attributes
    ----------
    seconds : CPU seconds since it began, its own validation after every epoch included.
    train_seconds : the same without validation.
    valid, test : accuracies by exact inference on the whole graph, in [0, 1]. That inference is
        in neither of the two seconds.
    """

    seconds: float
    train_seconds: float
    valid: float
    test: float


Curve = list[Point]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds, point by point, as far as all of them go."""
    return [
        Point(
            *(
                statistics.fmean(getattr(point, name) for point in points)
                for name in ("seconds", "train_seconds", "valid", "test")
            )
        )
        for points in zip(*curves, strict=False)
    ]


def reached(curve: Curve, target: float) -> Point | None:
    """The first point whose validation accuracy is `target` or more, None where none is."""
    return next((point for point in curve if point.valid >= target), None)


def mean_reached(curves: Sequence[Curve], target: float) -> Point | None:
    """The mean of the points at which each seed came to `target`, None where one did not: for
    trainings that end there, whose curves have different lengths."""
    points = [reached(curve, target) for curve in curves]
    found = [[point] for point in points if point is not None]
    return mean_curve(found)[0] if points and len(found) == len(points) else None


def breaks_even(preprocessing: float, ours: float | None, peer: float | None) -> int | None:
    """Trainings after which preprocessing has paid: the fewest n with preprocessing + n ours <=
    n peer. None where it never does, or where a side did not come to the accuracy."""
    if ours is None or peer is None or ours >= peer:
        return None
    return max(1, math.ceil(preprocessing / (peer - ours)))


def ratio_row(
    what: str,
    dataset: str,
    ours: float | None,
    peer: str,
    peer_value: float | None,
    n: int,
    target: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One row of runs/bench/NAME.json, in CPU seconds of one thread.

    `ratio` is peer_value / ours: more is better. Where the peer was not measured, `ratio` and `met`
    are None. Where only ours did not come to the accuracy, a target is not met.
    """
    both = ours is not None and peer_value is not None
    ratio = peer_value / ours if both and ours else None
    met = None
    if target is not None and peer_value is not None:
        met = ratio is not None and ratio >= target
    return {
        "what": what,
        "dataset": dataset,
        "ours": ours,
        "peer": peer,
        "peer_value": peer_value,
        "unit": "CPU s",
        "threads": 1,
        "n": n,
        "ratio": ratio,
        "target": target,
        "met": met,
        **more,
    }
