"""What sizing takes from a recipe: a node where a size of records is to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.codec.feature_columns import propagated
from stockpot.stages.guess import Guess, Known
from stockpot.stages.influence.batch_params import TOP_K, most_outputs
from stockpot.stages.node import SPLITS, node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["METHODS", "PLANNING"]


METHODS = ("node", "random")
"""Methods whose records unite the largest entries of single outputs: those that can be sized."""
MEASURED = ("batches.top_k", "batches.outputs", "batches.mix", "graph.mass")
"""Keys whose "auto" is what this stage finds."""


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if values["batches.method"] in METHODS and "auto" in [values[name] for name in MEASURED]:
        yield node("sizing", {"graph": "ingest", "split": "split"}, propagated(made))


def _guess(known: Known) -> Guess | None:
    """As automatic sizes are where many small records hold enough; a dense graph gets fewer and
    larger ones.
    """
    counts, asked = known.facts["split"], known.values["batches.top_k"]
    splits = {
        name: {
            "top_k": TOP_K if asked == "auto" else asked,
            "outputs": most_outputs("auto", int(counts[name]), name),
        }
        for name in SPLITS
    }
    return Guess({"splits": splits, "mass": "none"})


PLANNING = Planning(_nodes, guess=_guess)
