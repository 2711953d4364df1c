"""How much of a graph rate control measures, and which codecs it compares; described without numpy."""

from __future__ import annotations

__all__ = ["FANOUT", "LAYERS", "WIDTH", "ladder", "most_outputs", "most_rows", "rate_bytes"]

LAYERS = 3
"""Aggregations measured, whatever `train.layers` is: a change of the model recodes nothing."""
WIDTH = 256
"""Columns that are propagated; wider features by a random projection to so many."""
FANOUT = 16
"""Most neighbours of a node, of graphs with more than `WHOLE` entries."""
WHOLE = 1 << 25
_FLOATS = 1 << 25  # of one matrix
_ROWS = 1 << 18
_MOST_COLUMNS = 1024
_MOST_ROTATED = 256  # columns: a rotation takes the cube of them, twenty times
_LEAST_ROWS = 4096


def most_rows(num_features: int) -> int:
    """Nodes of the sample, at most."""
    return min(_ROWS, _FLOATS // max(1, min(num_features, WIDTH)))


def most_outputs(num_features: int) -> int:
    """Outputs of the sample, at most."""
    return _FLOATS // ((LAYERS + 1) * max(1, min(num_features, WIDTH)))


def rate_bytes(num_nodes: int, num_features: int, nnz: int) -> int:
    """Projected peak of measuring: two matrices of nodes and two of outputs at all depths, the sample, the ridge."""
    width = min(num_features, WIDTH)
    rows, outputs = min(num_nodes, most_rows(num_features)), min(num_nodes, most_outputs(num_features))
    matrices = 4 * width * (2 * rows + 2 * (LAYERS + 1) * outputs)
    entries = min(nnz, max(WHOLE, FANOUT * rows))
    return matrices + num_nodes + 24 * entries + 40 * rows + 4 * 8 * ((LAYERS + 1) * width) ** 2 + (64 << 20)


def ladder(num_nodes: int, num_features: int) -> tuple[str, ...]:
    """Candidates of `codec = "auto"`, each family from its most bytes to its fewest.

    Product codes of 2, 4, ... columns a byte, and of rotated columns as far as a rotation is found in seconds; residual
    codes of at most 8 bytes and a byte for 8 columns: with more they are slow to train and encode. All need rows to
    train 256 entries on.

    >>> ladder(10**6, 128)  # doctest: +NORMALIZE_WHITESPACE
    ('fp32', 'fp16', 'sq8', 'sq4', 'sq2', 'sq1', 'pq64', 'pq32', 'pq16', 'pq8', 'pq4',
     'opq64', 'opq32', 'opq16', 'opq8', 'opq4', 'rq8', 'rq4', 'rq2')
    >>> ladder(10**6, 8415)
    ('fp32', 'fp16', 'sq8', 'sq4', 'sq2', 'sq1')
    """
    names = ["fp32", "fp16", "sq8", "sq4", "sq2", "sq1"]
    if num_features <= _MOST_COLUMNS and num_nodes >= _LEAST_ROWS:
        parts = sorted({num_features // columns for columns in (2, 4, 8, 16, 32)} - {0}, reverse=True)
        names += [f"pq{units}" for units in parts]
        names += [f"opq{units}" for units in parts if units > 1 and num_features <= _MOST_ROTATED]
        names += [f"rq{stages}" for stages in (8, 4, 2) if 8 * stages <= num_features]
    return tuple(names)
