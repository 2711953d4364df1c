"""Writes the graph of a data set: its edges in CSR form, both ways where directed, within the
memory that is given.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.csr import build_csr, turned
from stockpot.stages.ingest.csr_memory import least_bytes
from stockpot.stages.ingest.edges import no_edges

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stockpot.stages.ingest.csr import Edges
    from stockpot.stages.ingest.source_data import DataSet, EdgeBlock
    from stockpot.stages.stage import Writer

__all__ = ["workspace", "write_graph"]


def write_graph(
    data: DataSet, writer: Writer, *, undirected: bool, room_bytes: int
) -> dict[str, Any]:
    """Write `indptr` i8, `indices` i4, `weight` f4 where weighted, and of directed graphs
    `t_indptr`, `t_indices`, `out_deg` i4; returns the facts. Beside `room_bytes` it takes 50 bytes
    a node.

    Raises
    ------
    BadInput
        An edge is wrong, or there are none but self-loops.
    """
    # The transpose is built while the graph itself may be in memory.
    spare = 0 if undirected else least_bytes(data.num_edges, undirected=False, weighted=False)
    with workspace(writer, "graph") as folder:
        csr = build_csr(
            _told(data, writer),
            data.num_nodes,
            data.num_edges,
            undirected=undirected,
            weighted=data.weighted,
            room_bytes=room_bytes - spare,
            folder=folder,
        )
        if len(csr.indices) == 0:
            raise no_edges(data.bad)
        degree = np.diff(csr.indptr)
        connected, most = degree > 0, int(degree.max())
        del degree
        writer.array("indptr", csr.indptr)
        writer.array("indices", csr.indices)
        held = csr.indices.nbytes if csr.in_memory else 0
        if csr.weight is not None:
            held *= 2
            writer.array("weight", csr.weight)
    if not undirected:
        with workspace(writer, "transpose") as folder:
            back = build_csr(
                turned(csr),
                data.num_nodes,
                len(csr.indices),
                undirected=False,
                weighted=False,
                room_bytes=room_bytes - held,
                folder=folder,
            )
            writer.array("t_indptr", back.indptr)
            writer.array("t_indices", back.indices)
            degree = np.diff(back.indptr)
            writer.array("out_deg", degree.astype(np.int32))
            connected |= degree > 0
    return {
        "num_edges_stored": data.num_edges,
        "nnz": len(csr.indices),
        "self_loops_dropped": csr.self_loops_dropped,
        "duplicates_merged": csr.duplicates_merged,
        "isolated_nodes": int((~connected).sum()),
        "directed": not undirected,
        "weighted": csr.weight is not None,
        "max_degree": most,
    }


def _told(data: DataSet, writer: Writer) -> Edges:
    """Edges of `data`, reported as they are read: both times together are the second quarter of
    ingest.
    """
    seen = 0

    def edges(most: int) -> Iterator[EdgeBlock]:
        nonlocal seen
        for block in data.edges(most):
            yield block
            seen += len(block.source)
            writer.progress(2 * data.num_edges + seen, 8 * data.num_edges, "reading edges")

    return edges


@contextmanager
def workspace(writer: Writer, name: str) -> Iterator[Path]:
    """Empty folder for files of this attempt; what a killed attempt left in it is removed, and all
    of it at the end.

    A memory map of a file in it stays valid after that.
    """
    folder = writer.scratch() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
