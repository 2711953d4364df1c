"""What soup takes from a recipe: section `soup`, and one node."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.recipe_key import BELOW_ONE, MANY, Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.train.planning import ingredients
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["METHODS", "PLANNING"]


Souping = Literal[
    "auto",
    "best",
    "uniform",
    "greedy",
    "gis",
    "learned",
    "signed",
    "grid",
    "published",
    "partition",
]
METHODS: tuple[str, ...] = get_args(Souping)[1:]
"""From the simplest on: a tie goes to the simpler. Each is a method of
`stockpot.stages.soup.methods.Methods`."""


@dataclass(frozen=True)
class Soup:
    method: Souping = key(
        "auto",
        "auto: best | uniform | greedy | gis | learned | signed, as validation says; grid | "
        "published | partition",
    )
    holdout: float = key(
        0.0, "share of valid kept from training's early stop for souping", BELOW_ONE
    )
    epochs: int | Auto = key("auto", "published, partition: steps of SGD; auto: 25, 50", MANY)
    rate: float | Auto = key(
        "auto",
        "published, partition: its first rate; auto: 10, 1; their authors tuned both",
        Range(0, 10**6, above=True),
    )
    period: int = key(
        4, "published, partition: epochs from one warm restart of the rate to the next", MANY
    )
    parts: int = key(
        32,
        "partition: K, parts of the validation records by METIS, equal in labelled outputs",
        MANY,
    )
    drawn: int = key(4, "partition: R, parts that a step sees", MANY)


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    yield node("soup", {"train": "pack:train", "valid": "pack:valid", **ingredients(values)})


def _guess(known: Known) -> Guess | None:
    parameters = max((f.get("num_parameters", 0) for f in known.facts.values()), default=0)
    return Guess({"chosen": "best", "methods": {}, "num_parameters": parameters})


PLANNING = Planning(_nodes, {"soup": Soup}, _guess)
