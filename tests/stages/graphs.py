"""Small graphs and slow, plain oracles shared by the tests of partition, influence and order."""

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from tests.memory import MemoryReader


def csr(num_nodes, edges, weights=None, undirected=True):
    """CSR arrays as ingest makes them: row = destination, loops dropped, duplicates merged (weights
    summed)."""
    edges = np.asarray(edges, np.int64).reshape(-1, 2)
    weights = np.ones(len(edges)) if weights is None else np.asarray(weights, float)
    keep = edges[:, 0] != edges[:, 1]
    matrix = sp.csr_matrix(
        (weights[keep], (edges[keep, 1], edges[keep, 0])), shape=(num_nodes, num_nodes)
    )
    if undirected:
        matrix = (matrix + matrix.T).tocsr()
    matrix.sum_duplicates()
    matrix.sort_indices()
    return (
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32),
        matrix.data.astype(np.float32),
    )


def reader(indptr, indices, weight=None, *, directed=False, y=None, num_classes=0):
    arrays = {"indptr": indptr, "indices": indices}
    if weight is not None:
        arrays["weight"] = weight
    if y is not None:
        arrays["y"] = y
    facts = {
        "num_nodes": len(indptr) - 1,
        "nnz": len(indices),
        "directed": directed,
        "weighted": weight is not None,
    }
    return MemoryReader(arrays, {**facts, "num_classes": num_classes})


def dense_ppr(indptr, indices, weight, alpha, self_loops):
    """alpha (I - (1 - alpha) P)^-1 by a dense float64 solve, and the degrees of the walk."""
    n = len(indptr) - 1
    weight = np.ones(len(indices)) if weight is None else np.asarray(weight, np.float64)
    A = sp.csr_matrix((weight, indices, indptr), shape=(n, n)).toarray()
    if not self_loops and len(weight):
        A = A / weight.mean()
    A += np.eye(n) * self_loops
    A[A.sum(1) == 0, A.sum(1) == 0] = 0
    for node in np.flatnonzero(A.sum(1) == 0):
        A[node, node] = 1.0
    degree = A.sum(1)
    return alpha * np.linalg.inv(np.eye(n) - (1 - alpha) * A / degree[:, None]), degree


def communities(num_nodes=600, groups=12, degree=6, seed=0, within=0.85):
    """Planted communities: group of a node = its label; some isolated nodes at the end."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, num_nodes)
    source = rng.integers(0, num_nodes - 5, num_nodes * degree // 2)
    by_group = [np.flatnonzero(group[: num_nodes - 5] == g) for g in range(groups)]
    target = np.array(
        [
            rng.choice(by_group[group[s]])
            if rng.random() < within
            else rng.integers(0, num_nodes - 5)
            for s in source
        ]
    )
    return np.stack([source, target], 1), group.astype(np.int32)


@st.composite
def graphs(draw, max_nodes=12, undirected=None, weighted=None):
    """Directed or not, with isolated nodes, self-loops, multi-edges, several components, or one
    node."""
    n = draw(st.integers(1, max_nodes))
    ids = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(ids, ids), max_size=3 * n))
    if draw(st.booleans()):
        edges += edges[: len(edges) // 2]
    if undirected is None:
        undirected = draw(st.booleans())
    if weighted is None:
        weighted = draw(st.booleans())
    weights = draw(
        st.lists(st.sampled_from([0.25, 1.0, 2.0, 7.5]), min_size=len(edges), max_size=len(edges))
    )
    indptr, indices, data = csr(n, edges, weights if weighted else None, undirected)
    return indptr, indices, data if weighted else None, undirected
