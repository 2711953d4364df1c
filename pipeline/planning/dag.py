"""What a recipe builds: one node per artifact with its inputs, as its stages say; describing it
imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from stockpot.planning.registry import STAGES
from stockpot.stages.errors import BadInput
from stockpot.stages.node import NODES, SOURCE

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.stages.node import Node

__all__ = ["ancestors", "build", "needed", "select"]


def build(recipe: Recipe) -> list[Node]:
    """Nodes of a recipe in topological order.

    Raises
    ------
    BadInput
        Values of the recipe do not go together.
    """
    values = recipe.values()
    made: dict[str, Node] = {}
    for stage in STAGES.values():
        made |= {node.id: node for node in stage.planning.nodes(values, made)}
    return _in_order(made)


def _in_order(made: Mapping[str, Node]) -> list[Node]:
    """The same nodes, each after its parents, and else as they were made."""
    ordered: dict[str, Node] = {}

    def take(node: Node) -> None:
        if node.id not in ordered:
            for parent in node.parents:
                take(made[parent])
            ordered[node.id] = node

    for node in made.values():
        take(node)
    return list(ordered.values())


def select(nodes: Sequence[Node], names: Iterable[str]) -> list[str]:
    """Node ids of the stages or nodes named ("train", "train:0"); all where none is named.

    Raises
    ------
    BadInput
        No stage and no node has that name.
    """
    names = list(names)
    if not names:
        return [node.id for node in nodes]
    for name in names:
        if not any(name in (node.id, node.stage) for node in nodes):
            stages = ", ".join(dict.fromkeys(node.stage for node in nodes))
            raise BadInput(f"stage {name}: not part of this recipe; expected one of {stages}")
    return [node.id for node in nodes if node.id in names or node.stage in names]


def needed(nodes: Sequence[Node], built: Container[str]) -> list[Node]:
    """The nodes without those of optional stages that had nothing to do: all around them is built,
    but they are not.
    """
    read = {parent for node in nodes if node.id in built for parent in node.parents}
    asked = {parent for node in nodes for parent in node.parents}

    def had_nothing_to_do(node: Node) -> bool:
        return (
            node.id in read if node.id in asked else all(parent in built for parent in node.parents)
        )

    left_out = {
        n.id
        for n in nodes
        if STAGES[n.stage].planning.optional and n.id not in built and had_nothing_to_do(n)
    }
    kept = {node.id for node in nodes} - left_out | {SOURCE, NODES}

    def among(roles: Mapping[str, str]) -> Mapping[str, str]:
        return MappingProxyType({role: name for role, name in roles.items() if name in kept})

    return [
        replace(n, inputs=among(n.inputs), advice=among(n.advice)) for n in nodes if n.id in kept
    ]


def ancestors(nodes: Sequence[Node], ids: Iterable[str]) -> list[Node]:
    """The nodes `ids` and everything they are made from, in the order of `nodes`."""
    by_id = {node.id: node for node in nodes}
    wanted: set[str] = set()
    stack = list(ids)
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack.extend(by_id[node].parents)
    return [node for node in nodes if node.id in wanted]
