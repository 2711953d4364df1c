"""A data set is gone through as ingest goes through it, with the same errors in the same order;
nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.ingest.csr_memory import BLOCK_EDGES, BLOCK_VALUES
from stockpot.stages.ingest.edges import no_edges
from stockpot.stages.ingest.features import SparseRows
from stockpot.stages.ingest.reduction import features_to_reduce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stockpot.stages.ingest.source_data import DataSet, Features

__all__ = ["check_dataset"]


def check_dataset(
    data: DataSet, reduce: int
) -> tuple[NDArray[np.int32], list[dict[str, NDArray[np.int32]]]]:
    """Labels and published splits of a data set of which every value was looked at.

    Parameters
    ----------
    reduce : `features.reduce`.

    Raises
    ------
    BadInput
        What ingest would say of it.
    """
    labels, splits = data.labels(), data.splits()
    connected = False
    for block in data.edges(BLOCK_EDGES):
        connected |= bool((block.source != block.target).any())
    if not connected:
        raise no_edges(data.bad)
    if (features := features_to_reduce(data, reduce)) is not None:
        _check_rows(features, data.num_nodes)
    return labels, splits


def _check_rows(features: Features, num_nodes: int) -> None:
    step = max(1, BLOCK_VALUES // features.columns)
    for start in range(0, num_nodes, step):
        rows = features.rows(start, min(start + step, num_nodes))
        assert isinstance(rows, SparseRows) == features.sparse
