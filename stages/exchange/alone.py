"""What one rank needs of a record to compute its own outputs by itself: a smaller record, rows of
others copied.

For comparison with cooperation, and for where it is cheaper (arXiv 2310.12403, section 2:
independent mini-batches).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.exchange.rank_partition import edges_of, owned
from stockpot.stages.exchange.rank_reads import reached
from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.pack.build import gather_further, gather_rows
from stockpot.stages.pack.layered import prefixes
from stockpot.stages.pack.record import Layer, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dealt", "narrowed"]


def dealt(records: int, ranks: int, rank: int) -> slice | None:
    """Which records of a step a rank takes whole; None where there are too few for all and each is
    shared out.
    """
    return slice(rank, None, ranks) if records >= ranks else None


def narrowed(record: Record, ranks: int, rank: int, layers: int) -> Record:
    """The outputs of one rank and all that a model of `layers` layers reads for them, as a record
    of its own.

    Its logits and gradients are those of the whole record at those outputs. Nodes are by (fewest
    edges to an own output, row); blocks are not kept. O(nodes + edges).

    Raises
    ------
    BadInput
        More ranks than blocks.
    """
    found = reached(record, ranks, rank, layers)
    sizes = np.array([rows.size for rows in found], np.int32)
    rows = np.concatenate(found)
    name = np.full(record.num_nodes, -1, np.int32)
    name[rows] = np.arange(rows.size)
    ends = np.cumsum(sizes)
    each = edges_of(record)
    depths = range(min(layers, len(each))) if record.layered else [layers - 1]
    kept = [
        _rows_of(each[min(k, len(each) - 1)], rows[: ends[k]] if layers else rows[:0], name)
        for k in depths
    ]
    mine = owned(record.block_ptr, ranks, rank)
    outputs = slice(int(mine.start[0]), int(mine.stop[0]))
    block_ptr = np.repeat(ends[:, None].astype(np.int32), record.block_ptr.shape[1], axis=1)
    block_ptr[:, 0] -= sizes
    nothing = np.zeros(0, np.int32)
    edges = Layer(nothing, nothing) if record.layered else _padded(kept[0], rows.size)
    sampled: Any = None
    if record.layers is not None:
        sampled = tuple(kept) if record.layered else prefixes(edges.indptr, edges.indices, sizes)
    return replace(
        record,
        n_id=record.n_id[rows],
        num_sampled_nodes=sizes,
        block_ptr=block_ptr,
        indptr=edges.indptr,
        indices=edges.indices,
        weight=edges.weight,
        deg=record.deg[rows],
        deg_w=None if record.deg_w is None else record.deg_w[rows],
        out_deg=None if record.out_deg is None else record.out_deg[rows],
        t_indptr=None,
        t_indices=None,
        y=record.y[outputs],
        input_id=record.input_id[outputs],
        layers=sampled,
        **_codes(record, rows),
        **_UNSHARED,
    )


_UNSHARED: dict[str, Any] = dict.fromkeys(
    f.name for f in fields(Record) if f.name.startswith("hag_")
)
"""Partial sums of the whole record say nothing of a part."""


def _codes(record: Record, rows: NDArray[np.int32]) -> dict[str, Any]:
    if len(record.codes) == 0 and record.code_indptr is None:  # they are gathered later
        return {}
    pointer = None if record.code_indptr is None else record.code_indptr.astype(np.int64)
    code_indptr, codes = gather_rows(rows, pointer, record.codes)
    found: dict[str, Any] = {"codes": codes, "code_indptr": code_indptr}
    if record.codes_1 is not None and record.codes_1_rows is not None:
        found["codes_1"], found["codes_1_rows"] = gather_further(
            rows, record.codes_1_rows, record.codes_1
        )
    return found


def _rows_of(edges: Layer, rows: NDArray[np.int32], name: NDArray[np.int32]) -> Layer:
    """Some rows of a CSR, columns renamed and sorted."""
    indptr = np.zeros(rows.size + 1, np.int32)
    np.cumsum(edges.indptr[rows + 1] - edges.indptr[rows], out=indptr[1:])
    indices, place = np.empty(int(indptr[-1]), np.int32), np.empty(int(indptr[-1]), np.int32)
    _pick(rows, frozen(edges.indptr), frozen(edges.indices), name, indptr, indices, place)
    values = {
        kind: column[place]
        for kind in ("edge_w", "weight")
        if (column := getattr(edges, kind)) is not None
    }
    return Layer(indptr, indices, **values)


def _padded(edges: Layer, nodes: int) -> Layer:
    """With empty rows for the nodes behind."""
    rows = edges.indptr.size - 1
    indptr = np.concatenate([edges.indptr, np.full(nodes - rows, edges.indptr[-1], np.int32)])
    return replace(edges, indptr=indptr)


@njit(cache=True, nogil=True)
def _pick(
    rows: NDArray[np.int32],
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    name: NDArray[np.int32],
    out_indptr: NDArray[np.int32],
    out_indices: NDArray[np.int32],
    place: NDArray[np.int32],
) -> None:
    """Row k = row rows[k], its columns renamed and sorted; place[e]: where its entry e stood."""
    for k in range(rows.size):
        first, last = indptr[rows[k]], indptr[rows[k] + 1]
        columns = np.empty(last - first, np.int32)
        for e in range(first, last):
            columns[e - first] = name[indices[e]]
        order = np.argsort(columns)
        for i in range(order.size):
            out_indices[out_indptr[k] + i] = columns[order[i]]
            place[out_indptr[k] + i] = first + order[i]
