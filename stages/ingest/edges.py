"""Every id that leaves this module is a node: an integer from 0 to N - 1, as int32; every weight is finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.ingest.members import Members

__all__ = ["read_edges", "read_ids", "read_num_nodes", "read_weight"]

_MOST_NODES = 2**31 - 1


def read_num_nodes(members: Members) -> int:
    """N, from `num_nodes`, or counted from `y` where that is missing."""
    if "num_nodes" in members:
        found = members["num_nodes"]
        if found.size != 1 or found.dtype.kind not in "iu" or int(found.ravel()[0]) < 1:
            raise members.bad("num_nodes", f"expected one positive integer, found {found.tolist()!r}")
        nodes = int(found.ravel()[0])
    elif "y" in members:
        nodes = len(np.atleast_1d(members["y"]))
    else:
        raise members.bad("num_nodes", "expected this member, or y to count the nodes, found neither")
    if nodes > _MOST_NODES:
        raise members.bad("num_nodes", f"expected at most {_MOST_NODES} nodes in this version, found {nodes}")
    return nodes


def read_ids(members: Members, name: str, values: NDArray[Any], num_nodes: int, what: str) -> NDArray[np.int32]:
    """`values` as i4, same shape, all checked; `what` says what a column is ("edge").

    Floats are refused even where they are whole: as such they have already lost ids above 2^24 or 2^53.
    """
    if values.dtype.kind not in "iu":
        detail = ""
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            detail = f", and {values.ravel()[at]} at {what} {at % values.shape[-1]}"
        raise members.bad(
            name, f"expected integer node ids, found {values.dtype}{detail}", fix="store it as int32 or int64"
        )
    if values.size and (values.min() < 0 or values.max() >= num_nodes):
        at = int(np.flatnonzero((values < 0) | (values >= num_nodes))[0])
        found, column = values.ravel()[at], at % values.shape[-1]
        raise members.bad(name, f"expected node ids from 0 to {num_nodes - 1}, found {found} at {what} {column}")
    return values.astype(np.int32, copy=False)


def read_edges(members: Members, num_nodes: int) -> NDArray[np.int32]:
    """i4[2, E] as stored, E > 0; row 0 the source, row 1 the destination. At most 24 bytes an edge while converting."""
    edges = members["edge_index"]
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise members.bad("edge_index", f"expected shape (2, E), found {edges.shape}")
    if edges.shape[1] == 0:
        raise members.bad("edge_index", "expected at least one edge, found no edges at all")
    return np.ascontiguousarray(read_ids(members, "edge_index", edges, num_nodes, "edge"))


def read_weight(members: Members, num_edges: int) -> NDArray[np.float32] | None:
    """f4[E], finite and not negative; None where edges have no weights."""
    if "edge_weight" not in members:
        return None
    weight = members["edge_weight"]
    if weight.shape != (num_edges,) or weight.dtype.kind not in "fiu":
        raise members.bad(
            "edge_weight", f"expected {num_edges} numbers, one an edge, found shape {weight.shape} of {weight.dtype}"
        )
    # A weight too large for float32 becomes inf and is reported as that.
    with np.errstate(over="ignore"):
        weight = weight.astype(np.float32)
    sound = np.isfinite(weight) & (weight >= 0)
    if not sound.all():
        at = int(np.flatnonzero(~sound)[0])
        raise members.bad("edge_weight", f"expected finite weights of 0 or more, found {weight[at]} at edge {at}")
    return weight
