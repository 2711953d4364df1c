"""What order takes from a recipe: section `order`, and one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.recipe_key import MANY, key
from stockpot.stages.stage import Planning
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


@dataclass(frozen=True)
class Order:
    method: Literal["label", "sample", "overlap", "shuffle"] = key(
        "label",
        "label: consecutive steps differ most in labels | sample: drawn by distance | overlap: "
        "share rows | shuffle",
    )
    window: int = key(
        2,
        "overlap: records that stay together where an epoch shuffles; more learn worse; 0: all, no "
        "shuffling",
        Range(0, 10**9),
    )
    mix: int = key(
        1,
        "overlap: windows walked side by side, a record of each in turn: steps of as many records "
        "are mixed",
        MANY,
    )
    cache: float | str = key(
        0.0,
        'load plan: rows cached, as a share of all nodes ("10%"), as rows (> 1) or bytes ("2GB")',
        Range(0, 10**12),
    )


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    yield from (
        node("order", {"records": name, "graph": "ingest"})
        for name in made
        if name in ("influence:train", "sample:train")
    )


def _guess(known: Known) -> Guess | None:
    records = known.facts["records"]["records"]
    lengths = {"tour_length": None, "random_length": None}
    shape = {"window": known.param("window", 0), "mix": known.param("mix", 1)}
    return Guess(
        {
            "method": known.values["order.method"],
            "records": records,
            **lengths,
            **shape,
            **known.rounds,
        }
    )


PLANNING = Planning(_nodes, {"order": Order}, _guess)
