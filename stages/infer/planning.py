"""What infer takes from a recipe: section `infer`, and one node."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.node import node
from stockpot.stages.pack.planning import outputs_of
from stockpot.stages.recipe_key import Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.train.planning import ingredients
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


@dataclass(frozen=True)
class Infer:
    by: Literal["records", "student"] = key(
        "records",
        "records: the chosen model, each output on its record | student: an MLP that it taught, "
        "one row each",
    )
    split: str = key("test", "test | all | a file of node ids (.npy or text)")
    top_k: int | Auto = key(
        0,
        "nodes kept for every output; 0: as in batches | auto: as many as the trained model's "
        "accuracy on validation needs",
        Range(0, 10**6),
    )
    full_graph: bool = key(True, "also exact inference on the whole graph, to compare with")


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    more = {
        role: name
        for role, name in (
            ("hag", "hag:graph"),
            ("exchange", "exchange:outputs"),
            ("student", "student"),
        )
        if name in made
    }
    yield node(
        "infer",
        {
            "outputs": outputs_of(made),
            "soup": "soup",
            **ingredients(values),
            "graph": "ingest",
            "codes": "quantize",
            **more,
        },
    )


PLANNING = Planning(_nodes, {"infer": Infer})
