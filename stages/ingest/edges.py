"""Every id that leaves this module is a node: an integer from 0 to N - 1, as int32; every weight is
finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.errors import BadInput
    from stockpot.stages.ingest.bad import Bad
    from stockpot.stages.ingest.members import Members

__all__ = ["check_ids", "check_num_nodes", "check_weight", "no_edges", "read_num_nodes"]

_MOST_NODES = 2**31 - 1


def read_num_nodes(members: Members) -> int:
    """N, from `num_nodes`, or counted from `y` where that is missing."""
    if "num_nodes" in members:
        found = members["num_nodes"]
        if found.size != 1 or found.dtype.kind not in "iu" or int(found.ravel()[0]) < 1:
            raise members.bad(
                "num_nodes", f"expected one positive integer, found {found.tolist()!r}"
            )
        nodes = int(found.ravel()[0])
    elif "y" in members:
        nodes = len(np.atleast_1d(members["y"]))
    else:
        raise members.bad(
            "num_nodes", "expected this member, or y to count the nodes, found neither"
        )
    return check_num_nodes(members.bad, "num_nodes", nodes)


def check_num_nodes(bad: Bad, name: str, nodes: int) -> int:
    """N where ids of that many nodes fit an int32."""
    if nodes > _MOST_NODES:
        raise bad(name, f"expected at most {_MOST_NODES} nodes in this version, found {nodes}")
    return nodes


def check_ids(
    bad: Bad, name: str, values: NDArray[Any], num_nodes: int, what: str, first: int = 0
) -> NDArray[np.int32]:
    """`values` as i4[n], all checked; `what` says what an item is ("edge"), `first` the number of
    the first.

    Floats are refused even where they are whole: as such they have already lost ids above 2^24 or
    2^53.
    """
    if values.dtype.kind not in "iu":
        detail = ""
        fix: str | None = "store it as int32 or int64"
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            # As an integer, what is no number would be some node.
            detail, fix = (
                f", and {values[at]} at {what} {first + at}",
                f"remove such items first, then {fix}",
            )
        raise bad(name, f"expected integer node ids, found {values.dtype}{detail}", fix=fix)
    if values.size and (values.min() < 0 or values.max() >= num_nodes):
        at = int(np.flatnonzero((values < 0) | (values >= num_nodes))[0])
        from_one = values.min() > 0 and values.max() == num_nodes
        fix = (
            "where ids count from 1, subtract 1; else set num_nodes to all nodes there are"
            if from_one
            else None
        )
        raise bad(
            name,
            f"expected node ids from 0 to {num_nodes - 1}, found {values[at]} at {what} "
            f"{first + at}",
            fix,
        )
    return values.astype(np.int32, copy=False)


def no_edges(bad: Bad) -> BadInput:
    """The error about a graph in which no node has a neighbour."""
    return bad("edge_index", "expected an edge between two nodes, found no edges but self-loops")


def check_weight(bad: Bad, name: str, values: NDArray[Any], first: int = 0) -> NDArray[np.float32]:
    """Numbers as f4[n], finite and not negative; `first` is the number of the first edge."""
    # A weight too large for float32 becomes inf and is reported as that.
    with np.errstate(over="ignore"):
        weight = values.astype(np.float32)
    sound = np.isfinite(weight) & (weight >= 0)
    if not sound.all():
        at = int(np.flatnonzero(~sound)[0])
        raise bad(
            name, f"expected finite weights of 0 or more, found {weight[at]} at edge {first + at}"
        )
    return weight
