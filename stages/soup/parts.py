"""Records are put into parts by METIS, near ones together, so that the parts have equally many
labelled outputs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.partition.solver import solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["record_parts"]


def record_parts(
    n_ids: Sequence[NDArray[np.int64]], labelled: Sequence[int], parts: int, seed: int
) -> NDArray[np.int32]:
    """K-way partition of records, as PLS (arXiv 2503.11612) makes one of nodes.

    METIS' graph has a vertex a record, of the weight of its labelled outputs, and an edge between
    two records, of the weight of the nodes they share.

    Parameters
    ----------
    n_ids : i8[n] of each record, its nodes.
    labelled : labelled outputs of each record.
    parts : K.

    Returns
    -------
    i4[records], in [0, parts). Where there are at most `parts` records, each is a part.
    """
    import scipy.sparse as sp

    sizes = [len(ids) for ids in n_ids]
    nodes, column = np.unique(np.concatenate(n_ids), return_inverse=True)
    row = np.repeat(np.arange(len(n_ids)), sizes)
    holds = sp.csr_matrix((np.ones(len(row), np.int64), (row, column)), (len(n_ids), len(nodes)))
    shared = (holds @ holds.T).tocsr()
    shared.setdiag(0)
    shared.eliminate_zeros()
    shared.sort_indices()
    with tempfile.TemporaryDirectory() as folder:
        return solve(
            shared.indptr.astype(np.int64),
            shared.indices.astype(np.int32),
            parts,
            seed=seed,
            folder=Path(folder),
            node_weight=np.maximum(1, np.asarray(labelled, np.int64)),
            edge_weight=shared.data,
        )
