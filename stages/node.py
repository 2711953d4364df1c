"""A node is one artifact of a run: which stage makes it, and of what. Describing it imports nothing
heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["NODES", "SOURCE", "SPLITS", "Node", "Nodes", "Values", "node"]

SPLITS = ("train", "valid", "test")
SOURCE, NODES = "source", "nodes"
"""Inputs that are files of the user, not artifacts: the data set, and the node ids of `infer.split
= FILE`."""

Values = Mapping[str, Any]
"""Dotted recipe key -> value."""


@dataclass(frozen=True)
class Node:
    """One artifact of a run.

    Attributes
    ----------
    id : "ingest", "influence:train", "train:0", ...
    stage : name of the stage that makes it.
    inputs : role -> node id, or `SOURCE` / `NODES`.
    instance : values added to the recipe's for `Stage.resolve` ("split", "index").
    advice : role -> node id of artifacts whose facts only resolve parameters: not read, and no part
        of the key.
    """

    id: str
    stage: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    instance: Mapping[str, Any] = field(default_factory=dict)
    advice: Mapping[str, str] = field(default_factory=dict)

    @property
    def parents(self) -> tuple[str, ...]:
        """Node ids it needs, files of the user left out."""
        named = (*self.inputs.values(), *self.advice.values())
        return tuple(dict.fromkeys(i for i in named if i not in (SOURCE, NODES)))


Nodes = Mapping[str, Node]
"""Nodes by id that earlier stages make of the recipe."""


def node(
    name: str, inputs: Mapping[str, str], advice: Mapping[str, str] | None = None, **instance: Any
) -> Node:
    """The node `name`, "STAGE" or "STAGE:PART"; nothing of it can be changed."""
    stage = name.partition(":")[0]
    frozen = (MappingProxyType(dict(given)) for given in (inputs, instance, advice or {}))
    return Node(name, stage, *frozen)
