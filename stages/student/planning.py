"""What student takes from a recipe: section `student`, and one node where inference is by it."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.recipe_key import BELOW_ONE, MANY, Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.train.planning import ingredients
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING", "no_hops", "student_parameters"]


@dataclass(frozen=True)
class Student:
    teacher: Literal["auto", "soup", "ensemble"] = key(
        "auto",
        "soup: the chosen one | ensemble: the mean of all ingredients' probabilities | auto: "
        "ensemble where there are several",
    )
    hops: int = key(
        0,
        "hops that its rows hold beyond features.propagate; they gain where neighbours is off",
        Range(0, 8),
    )
    neighbours: bool = key(
        default=True,
        about="its rows also hold the mean of what its teacher says of the node's neighbours",
    )
    hidden: int = key(512, "width of its two hidden layers", Range(1, 2**16))
    epochs: int | Auto = key(
        "auto",
        "passes over the nodes it is taught; auto: 40, more where these are fewer than 1,500 steps",
        MANY,
    )
    dropout: float = key(0.2, "share of hidden values dropped while it is taught", BELOW_ONE)
    noise: float = key(
        0.0,
        "standard deviation of what is added to its rows while it is taught, in deviations of a "
        "column",
        Range(0, 100),
    )


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["infer.by"] != "student":
        return
    if not values["features.propagate"]:
        raise no_hops("0")
    yield node(
        "student",
        {
            "graph": "ingest",
            "split": "split",
            "codes": "quantize",
            "soup": "soup",
            **ingredients(values),
        },
        {"calibrate": "calibrate"} if "calibrate" in made else {},
    )


def no_hops(found: str) -> BadInput:
    """The error of a student whose rows would hold nothing of the neighbours."""
    return BadInput(
        f"infer.by: student: it reads no edge, so its rows have to hold what neighbours say: "
        f"expected features.propagate above 0, found {found}",
        fix="--set features.propagate=2, or --set infer.by=records",
    )


def student_parameters(features: int, hidden: int, classes: int) -> int:
    """Numbers of a student: three maps with biases, and two norms."""
    return features * hidden + hidden * hidden + hidden * classes + 6 * hidden + classes


def _guess(known: Known) -> Guess | None:
    graph, codes = known.facts["graph"], known.facts["codes"]
    hidden = known.param("hidden", known.values["student.hidden"])
    columns = codes["num_features"] + known.values["student.hops"] * graph["num_features"]
    columns += graph["num_classes"] if known.values["student.neighbours"] else 0
    count = student_parameters(columns, hidden, graph["num_classes"])
    return Guess({"num_parameters": count, "hidden": hidden})


PLANNING = Planning(_nodes, {"student": Student}, _guess)
