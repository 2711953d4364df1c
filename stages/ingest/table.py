"""Writes the feature rows of a data set a block at a time, reduced or as they are, and counts what
is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.buckets import RawFile
from stockpot.stages.ingest.csr_memory import BLOCK_VALUES
from stockpot.stages.ingest.features import SparseRows
from stockpot.stages.ingest.graph import workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.ingest.source_data import Features
    from stockpot.stages.stage import Writer

    Block = NDArray[np.float32] | SparseRows

__all__ = ["write_features", "write_reduced"]


def write_features(features: Features, num_nodes: int, writer: Writer) -> dict[str, Any]:
    """Write `x` f4[N, D], or `x_indptr` i8, `x_indices` i4 and, unless all are 1, `x_data` f4;
    returns the facts.
    """
    if not features.sparse:
        x = writer.create("x", (num_nodes, features.columns), np.float32)
        nonzeros = ones = 0
        for start, block in _blocks(features, num_nodes):
            assert isinstance(block, np.ndarray)
            x[start : start + len(block)] = block
            nonzeros += int(np.count_nonzero(block))
            ones += int(np.count_nonzero(block == 1))
        return _facts("dense", features.columns, nonzeros, binary=nonzeros == ones)
    with workspace(writer, "features") as folder:
        rows = _collect(features, num_nodes, folder)
        writer.array("x_indptr", rows.indptr)
        writer.array("x_indices", rows.indices)
        if rows.data is not None:
            writer.array("x_data", rows.data)
    return _facts("sparse", features.columns, len(rows.indices), binary=rows.data is None)


def write_reduced(
    features: Features,
    num_nodes: int,
    dimensions: int,
    writer: Writer,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write `x` f4[N, d]: the truncated SVD of the features, read again and again from a file;
    returns the facts.
    """
    from stockpot.stages.ingest.svd import reduce_features

    with workspace(writer, "features") as folder:
        given: Block
        if features.sparse:
            given = _collect(features, num_nodes, folder)
        else:
            with RawFile(folder / "x", np.float32) as file:
                for _, block in _blocks(features, num_nodes):
                    assert isinstance(block, np.ndarray)
                    file.append(block)
                given = file.values().reshape(num_nodes, features.columns)
        x = writer.create("x", (num_nodes, dimensions), np.float32)
        reduce_features(given, num_nodes, features.columns, dimensions, progress, out=x)
    step = max(1, BLOCK_VALUES // dimensions)
    nonzeros = sum(
        int(np.count_nonzero(x[start : start + step])) for start in range(0, num_nodes, step)
    )
    return _facts("dense", dimensions, nonzeros, binary=False)


def _facts(kind: str, columns: int, nonzeros: int, *, binary: bool) -> dict[str, Any]:
    return {"features": kind, "num_features": columns, "binary": binary, "x_nnz": nonzeros}


def _blocks(features: Features, num_nodes: int) -> Iterator[tuple[int, Block]]:
    """First row and rows of blocks of about `BLOCK_VALUES` values.

    Of sparse rows the next block is as long as the last one suggests, at most twice that.
    """
    start, step = 0, max(1, BLOCK_VALUES // features.columns)
    while start < num_nodes:
        stop = min(start + step, num_nodes)
        block = features.rows(start, stop)
        yield start, block
        if isinstance(block, SparseRows):
            held = max(1, len(block.indices))
            step = max(1, min(2 * step, step * BLOCK_VALUES // held))
        start = stop


def _collect(features: Features, num_nodes: int, folder: Path) -> SparseRows:
    """All sparse rows, as memory maps of files in `folder`; only the row pointers are in memory."""
    indptr = np.zeros(num_nodes + 1, np.int64)
    binary = True
    with (
        RawFile(folder / "x_indices", np.int32) as indices,
        RawFile(folder / "x_data", np.float32) as data,
    ):
        for start, block in _blocks(features, num_nodes):
            assert isinstance(block, SparseRows)
            indptr[start + 1 : start + len(block.indptr)] = block.indptr[1:] + indptr[start]
            indices.append(block.indices)
            binary &= block.data is None
            data.append(
                np.ones(len(block.indices), np.float32) if block.data is None else block.data
            )
        return SparseRows(
            indptr, indices.values(), None if binary else data.values(), features.columns
        )
