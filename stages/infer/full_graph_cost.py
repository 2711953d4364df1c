"""What exact inference on the whole graph is projected to read and hold, from facts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.stage import Facts

__all__ = ["HIDDEN", "full_graph_bytes", "widest"]

HIDDEN = 1024
"""Width reckoned with until an ingredient says its own."""


def widest(facts: Mapping[str, Facts], roles: Sequence[str]) -> tuple[int, int, int]:
    """(bytes of the weights, width, 4-byte values a layer holds by edge), the largest of some
    ingredients.
    """
    weights = 4 * max((int(facts[role].get("num_parameters", 0)) for role in roles), default=0)
    hidden = max((int(facts[role].get("hidden", HIDDEN)) for role in roles), default=HIDDEN)
    floats = max((int(facts[role].get("edge_floats", 0)) for role in roles), default=0)
    return weights, hidden, floats


def full_graph_bytes(
    facts: Mapping[str, Facts], roles: Sequence[str], classes: int
) -> tuple[int, int]:
    """(bytes read, bytes held) by one model that is asked of all nodes.

    Parameters
    ----------
    facts : of "graph", "codes", and of the ingredients, whose names are `roles`.
    """
    graph, codes = facts["graph"], facts["codes"]
    _, hidden, floats = widest(facts, roles)
    nodes, nnz, columns = int(graph["num_nodes"]), int(graph["nnz"]), int(codes["num_features"])
    read = 8 * nodes + 4 * nnz + int(codes["code_bytes"])
    # Per node: two layers' activations, a third where the first layer reads no edge, pointers and a
    # loop; per edge an id and a value; and blocks of rows.
    stored = hidden if "propagated" in codes else 0
    whole = (
        nodes * (4 * (max(columns, hidden) + hidden + stored) + 32)
        + 8 * nnz
        + (4 * max(columns, hidden) << 17)
    )
    if floats:
        # Attention projects all nodes before the first edge; a model without layers sees all edges
        # at once. Where neighbours are read in order, a block of a few thousand rows, some of them
        # long, is held.
        sequential = any(facts[role].get("sequential") for role in roles)
        edges = min(nnz, (nnz << 14) // max(1, nodes)) if sequential else nnz + nodes
        whole += 4 * nodes * (2 * hidden + (0 if sequential else floats) * classes) + 4 * edges * (
            2 * floats + 4
        )
    return read, whole
