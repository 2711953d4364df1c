"""Sizes of the models that read rows alone; described without torch, for plans and cost models."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROW_MODELS", "linear_layers", "multiply_adds"]

ROW_MODELS = ("sgc", "sign")
"""Models whose features are multiplied by the graph's matrix beforehand: they read no edge."""


def linear_layers(config: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(how many side by side, columns, outputs) of each linear layer of a row model, the first
    first.

    Parameters
    ----------
    config : "model", "num_features" of all hops together, "num_classes", "hops"; of sign "hidden"
        and "head", the linear layers after those of the hops.
    """
    hops, classes = int(config["hops"]), int(config["num_classes"])
    columns = int(config["num_features"]) // (hops + 1)
    if config["model"] == "sgc":
        return [(1, columns, classes)]
    hidden, head = int(config["hidden"]), int(config["head"])
    dims = [(hops + 1) * hidden, *[hidden] * (head - 1), classes]
    return [(hops + 1, columns, hidden), *((1, a, b) for a, b in pairwise(dims))]


def multiply_adds(config: Mapping[str, Any]) -> int:
    """Of a forward pass of one row: as many as a row model has weights, biases left out."""
    return sum(count * a * b for count, a, b in linear_layers(config))
