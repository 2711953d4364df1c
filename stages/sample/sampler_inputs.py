"""What the stage is given, as the sampler takes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.sample.batch import Graph, Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.stage import Reader

__all__ = ["facts_of", "graph_of", "sampling_of"]


def graph_of(
    graph: Reader, block: NDArray[np.integer[Any]] | None = None, blocks: int = 1
) -> Graph:
    """The ingested graph; hops are sorted by (block, id) where blocks are given, else by id."""
    weight = np.asarray(graph.array("weight")) if graph.has("weight") else None
    return Graph.of(
        np.asarray(graph.array("indptr")), np.asarray(graph.array("indices")), weight, block, blocks
    )


def facts_of(how: Sampling) -> dict[str, Any]:
    """JSON from which `sampling_of` makes the same sampling."""
    return {**asdict(how), "fanouts": list(how.fanouts)}


def sampling_of(facts: Mapping[str, Any]) -> Sampling:
    """Inverse of `facts_of`."""
    return Sampling(**{**facts, "fanouts": tuple(facts["fanouts"])})
