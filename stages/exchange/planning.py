"""What exchange takes from a recipe: a node for the records that ranks train on, one for those they
infer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.pack.planning import outputs_of
from stockpot.stages.partition.blocks import BLOCKS, num_blocks
from stockpot.stages.stage import Planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    if (ranks := values["train.ranks"]) <= 1:
        return
    parts = values["partition.parts"]
    counted = isinstance(parts, str) or "partition" not in made
    most = num_blocks(BLOCKS if counted else int(parts))
    if ranks > most:
        raise BadInput(
            f"train.ranks: expected at most {most}, one a block of the packed records, found "
            f"{ranks}",
            fix=f"--set train.ranks={most}",
        )
    yield node("exchange", {"records": "pack:train"})
    if values["train.exchange"] == "cooperative":
        yield node("exchange:outputs", {"records": outputs_of(made)})


def _guess(known: Known) -> Guess | None:
    packed, ranks = known.facts["records"], int(known.values["train.ranks"])
    rows = packed["rows"]
    return Guess(
        {
            "ranks": ranks,
            "split": packed["split"],
            "records_of_shards": [packed["records"]],
            "rows": [rows // ranks] * ranks,
            "row_bytes": None,
            "received": [rows * (ranks - 1) // 2],
            "together": {"rows": [rows], "edges": [packed["edges"]], "features": [packed["bytes"]]},
            "alone": {
                "rows": [rows * ranks],
                "edges": [packed["edges"] * ranks],
                "features": [packed["bytes"] * ranks],
            },
        }
    )


PLANNING = Planning(_nodes, guess=_guess)
