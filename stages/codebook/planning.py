"""What codebook takes from a recipe: a node where the codec is lossy, or may turn out to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.codec.codec_names import is_lossy
from stockpot.stages.codec.feature_columns import features_of, propagated
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    codec = values["features.codec"]
    if codec == "auto" or is_lossy(codec):
        exposed = {"split": "split"} if values["features.tier_share"] > 0 else {}
        yield node(
            "codebook",
            {"graph": "ingest", **propagated(made), **exposed},
            {"judge": "judge"} if "judge" in made else {},
        )


def _guess(known: Known) -> Guess | None:
    graph = features_of(known.facts)
    sizes = {"num_nodes": graph["num_nodes"], "num_features": graph["num_features"]}
    return Guess(
        {"codec": known.param("codec", "") or "fp32", "sample": known.param("sample", 0), **sizes}
    )


PLANNING = Planning(_nodes, guess=_guess, optional=True)
