"""How much of a graph the errors of a code are measured on; described without numpy."""

from __future__ import annotations

__all__ = ["FANOUT", "LAYERS", "WIDTH", "most_outputs", "most_rows", "rate_bytes"]

LAYERS = 3
"""Aggregations measured, whatever `train.layers` is: a change of the model recodes nothing."""
WIDTH = 256
"""Columns that are propagated; wider features by a random projection to so many."""
FANOUT = 16
"""Most neighbours of a node, of graphs with more than `WHOLE` entries."""
WHOLE = 1 << 25
_FLOATS = 1 << 25  # of one matrix
_ROWS = 1 << 18


def most_rows(num_features: int) -> int:
    """Nodes of the sample, at most."""
    return min(_ROWS, _FLOATS // max(1, min(num_features, WIDTH)))


def most_outputs(num_features: int) -> int:
    """Outputs of the sample, at most."""
    return _FLOATS // ((LAYERS + 1) * max(1, min(num_features, WIDTH)))


def rate_bytes(num_nodes: int, num_features: int, nnz: int) -> int:
    """Projected peak of measuring: two matrices of nodes and two of outputs at all depths, and the
    sample.
    """
    width = min(num_features, WIDTH)
    rows, outputs = (
        min(num_nodes, most_rows(num_features)),
        min(num_nodes, most_outputs(num_features)),
    )
    matrices = 4 * width * (2 * rows + 2 * (LAYERS + 1) * outputs)
    entries = min(nnz, max(WHOLE, FANOUT * rows))
    return matrices + num_nodes + 24 * entries + 40 * rows + (64 << 20)
