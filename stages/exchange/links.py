"""Who sends what to whom: the rows of each rank that others read, found once for every number of ranks.

With them stored, ranks exchange rows and never ids: both sides number the rows of a pair by their place in the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.exchange.piece import needs, owned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stages.pack.record import Record

__all__ = ["Links", "links"]


@dataclass(frozen=True)
class Links:
    """One rank's side of the exchange of one record. 10 bytes a row that crosses (14 in weighted graphs), both sides.

    Attributes
    ----------
    send : i4[s], own nodes (numbered as in `Piece`) that other ranks read, by (rank, row).
    send_ptr : i8[ranks + 1], those that rank p reads: send[send_ptr[p]:send_ptr[p + 1]].
    send_level : u1[s], the lowest hop of a row of that rank that reads it.
    level : u1[m], of the rows it receives, as in `Piece`; all of them, where a piece may be cut for few layers.
    deg, deg_w : i4[m], f4[m] or None, of the rows it receives: their owners alone read them.
    """

    send: NDArray[np.int32]
    send_ptr: NDArray[np.int64]
    send_level: NDArray[np.uint8]
    level: NDArray[np.uint8]
    deg: NDArray[np.int32]
    deg_w: NDArray[np.float32] | None = None


def links(record: Record, ranks: int) -> list[Links]:
    """The links of every rank, for models of any depth: a shallower one leaves out what has too high a level.

    O(ranks * nodes + edges).

    Raises
    ------
    BadInput
        More ranks than blocks.
    """
    hops = len(record.num_sampled_nodes)
    wanted = [needs(record, ranks, rank, hops) for rank in range(ranks)]
    found = []
    for rank in range(ranks):
        mine = owned(record.block_ptr, ranks, rank)
        base = np.concatenate([[0], np.cumsum(mine.sizes)])[:-1]
        rows, levels = _from(wanted, rank)
        hop = np.searchsorted(np.cumsum(record.num_sampled_nodes), np.concatenate(rows), side="right")
        send = np.concatenate(rows) - mine.start[hop] + base[hop]
        remote, _, level = wanted[rank]
        found.append(
            Links(
                send=send.astype(np.int32),
                send_ptr=np.concatenate([[0], np.cumsum([part.size for part in rows])]).astype(np.int64),
                send_level=np.concatenate(levels).astype(np.uint8),
                level=level,
                deg=record.deg[remote],
                deg_w=None if record.deg_w is None else record.deg_w[remote],
            )
        )
    return found


def _from(
    wanted: Sequence[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]], rank: int
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.uint8]]]:
    """Rows of `rank` that each rank wants, and their levels there."""
    spans = [slice(int(pointer[rank]), int(pointer[rank + 1])) for _, pointer, _ in wanted]
    rows = [remote[span] for (remote, _, _), span in zip(wanted, spans, strict=True)]
    return rows, [level[span] for (_, _, level), span in zip(wanted, spans, strict=True)]
