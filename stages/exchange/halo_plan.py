"""Who sends what to whom: the rows of each rank that others read, found once for every number of
ranks.

With them stored, ranks exchange rows and never ids: both sides number the rows of a pair by their
place in the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.exchange.rank_partition import needs, owned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = ["Links", "links"]


@dataclass(frozen=True)
class Links:
    """One rank's side of the exchange of one record. 12 bytes a row that crosses (16 in weighted
    graphs), both sides.

    Attributes
    ----------
    send : i4[s], own nodes (numbered as in `Piece`) that other ranks read, by (rank, row).
    send_ptr : i8[ranks + 1], those that rank p reads: send[send_ptr[p]:send_ptr[p + 1]].
    send_used : u2[s], `Piece.used` of that rank. used : u2[m], of the rows it receives; all of
        them, where a piece may be cut for few layers.
    deg, deg_w : i4[m], f4[m] or None, of the rows it receives: their owners alone read them.
    """

    send: NDArray[np.int32]
    send_ptr: NDArray[np.int64]
    send_used: NDArray[np.uint16]
    used: NDArray[np.uint16]
    deg: NDArray[np.int32]
    deg_w: NDArray[np.float32] | None = None


def links(record: Record, ranks: int) -> list[Links]:
    """The links of every rank, for models of up to `DEEPEST` layers: a shallower one leaves out
    what it does not use.

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
        rows, used = _from(wanted, rank)
        hop = np.searchsorted(
            np.cumsum(record.num_sampled_nodes), np.concatenate(rows), side="right"
        )
        send = np.concatenate(rows) - mine.start[hop] + base[hop]
        remote, _, far_used = wanted[rank]
        found.append(
            Links(
                send=send.astype(np.int32),
                send_ptr=np.concatenate([[0], np.cumsum([part.size for part in rows])]).astype(
                    np.int64
                ),
                send_used=np.concatenate(used),
                used=far_used,
                deg=record.deg[remote],
                deg_w=None if record.deg_w is None else record.deg_w[remote],
            )
        )
    return found


def _from(
    wanted: Sequence[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint16]]], rank: int
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.uint16]]]:
    """Rows of `rank` that each rank wants, and how they are used there."""
    spans = [slice(int(pointer[rank]), int(pointer[rank + 1])) for _, pointer, _ in wanted]
    rows = [remote[span] for (remote, _, _), span in zip(wanted, spans, strict=True)]
    return rows, [used[span] for (_, _, used), span in zip(wanted, spans, strict=True)]
