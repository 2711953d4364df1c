"""HAGs of random graphs for tests: a greedy that merges pairs of neighbours, without any
cleverness."""

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from stockpot.stages.hag.hag import Hag, csr_crc


def pair_greedy(indptr, indices, num_nodes, most=8):
    """HAG of `most` pairs at most, the commonest first; rows must not repeat a column."""
    rows = [set(indices[a:b].tolist()) for a, b in pairwise(indptr.tolist())]
    pairs = []
    while len(pairs) < most:
        count = Counter(pair for row in rows for pair in combinations(sorted(row), 2))
        if not count or count.most_common(1)[0][1] < 2:
            break
        best = max(count.values())
        a, b = min(pair for pair, times in count.items() if times == best)
        for row in rows:
            if {a, b} <= row:
                row -= {a, b}
                row.add(num_nodes + len(pairs))
        pairs.append((a, b))
    level = []
    for a, b in pairs:
        level.append(1 + max([level[c - num_nodes] for c in (a, b) if c >= num_nodes], default=0))
    order = sorted(range(len(pairs)), key=lambda j: (level[j], j))
    new = {num_nodes + j: num_nodes + i for i, j in enumerate(order)}
    renumbered = [sorted(new.get(c, c) for c in pairs[j]) for j in order]
    result = [sorted(new.get(c, c) for c in row) for row in rows]
    sizes = np.bincount(level, minlength=1)[1:] if level else np.zeros(0, int)
    return Hag(
        len(rows),
        num_nodes,
        np.r_[0, np.cumsum(sizes)].astype(np.int64),
        *ragged(renumbered),
        *ragged(result),
        None,
        None,
        csr_crc(indptr, indices),
        len(indices),
        int(np.maximum(np.diff(indptr) - 1, 0).sum()),
    )


def ragged(rows):
    indptr = np.r_[0, np.cumsum([len(row) for row in rows])].astype(np.int64)
    return indptr, np.array([c for row in rows for c in row], np.int32)


def csr_arrays(matrix):
    matrix = sp.csr_matrix(matrix)
    matrix.sort_indices()
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)


@st.composite
def graphs(draw, most=14, square=True):
    """0/1 scipy CSR with shared neighbours: communities of equal rows with some entries flipped."""
    cols = draw(st.integers(1, most))
    rows = cols if square else draw(st.integers(1, most))
    seed, groups, flips = (
        draw(st.integers(0, 2**31)),
        draw(st.integers(1, 4)),
        draw(st.floats(0, 0.3)),
    )
    rng = np.random.default_rng(seed)
    dense = (rng.random((groups, cols)) < 0.5)[rng.integers(0, groups, rows)] ^ (
        rng.random((rows, cols)) < flips
    )
    return sp.csr_matrix(dense.astype(np.int64))
