import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest import STAGE
from stockpot.stages.ingest.eigen import eigh, orthonormalise
from stockpot.stages.ingest.features import SparseRows
from stockpot.stages.ingest.svd import reduce_features

ROOT = Path(__file__).parents[3]


def sparse(nodes, columns, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    matrix = sp.random(nodes, columns, 0.1, format="csr", dtype=np.float32, random_state=rng)
    if rank is not None:
        left = sp.random(nodes, rank, 0.4, format="csr", dtype=np.float32, random_state=rng)
        right = sp.random(rank, columns, 0.4, format="csr", dtype=np.float32, random_state=rng)
        matrix = sp.csr_matrix(left @ right)
        matrix.sort_indices()
    return matrix, SparseRows(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, columns
    )


def coordinates(matrix, dimensions):
    """U S by LAPACK, columns signed by the largest entry of V, scaled to mean square 1."""
    u, s, vt = np.linalg.svd(matrix.astype(float), full_matrices=False)
    u, s, vt = u[:, :dimensions], s[:dimensions], vt[:dimensions]
    signs = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)])
    found = u * s * signs
    return found / np.sqrt((found**2).mean())


def test_all_dimensions_are_the_svd():
    matrix, rows = sparse(60, 12)
    found = reduce_features(rows, 60, 12, 12)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, coordinates(matrix.toarray(), 12), atol=2e-5)
    np.testing.assert_allclose(reduce_features(matrix.toarray(), 60, 12, 12), found, atol=1e-6)


def test_few_dimensions_keep_what_the_best_ones_keep():
    matrix, rows = sparse(400, 120, rank=20)
    dense = matrix.toarray().astype(float)
    found = reduce_features(rows, 400, 120, 8).astype(float)
    best = coordinates(dense, 8)
    assert abs((found**2).mean() - 1) < 1e-5
    for mine, theirs in zip(found.T, best.T, strict=True):
        assert abs(mine @ theirs) / np.linalg.norm(mine) / np.linalg.norm(theirs) > 0.999


def test_dimensions_beyond_the_rank_are_zero():
    _, rows = sparse(50, 30, rank=3)
    found = reduce_features(rows, 50, 30, 10)
    assert np.isfinite(found).all()
    assert np.abs(found[:, 3:]).max() < 1e-5
    assert np.abs(found[:, :3]).max() > 0.1
    nothing = reduce_features(np.zeros((5, 4), np.float32), 5, 4, 2)
    assert not nothing.any()


def test_progress_ends_at_its_total():
    seen = []
    reduce_features(sparse(30, 10)[1], 30, 10, 4, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)


def test_more_dimensions_than_features_are_refused():
    with pytest.raises(ValueError, match="expected 1 to 10"):
        reduce_features(sparse(30, 10)[1], 30, 10, 11)
    values = {"graph.undirected": True, "features.reduce": 11}
    with pytest.raises(BadInput, match=r"features\.reduce: expected at most 10 .* found 11"):
        STAGE.resolve(values, {"source": {"num_nodes": 30, "num_features": 10}})
    assert STAGE.resolve(values, {"source": {}}).reduce == 11


SCRIPT = """
import hashlib, sys
import numpy as np
sys.path.insert(0, "tests/stages/ingest")
from test_ingest_svd import sparse
from stockpot.stages.ingest.svd import reduce_features
print(hashlib.sha256(reduce_features(sparse(3000, 200)[1], 3000, 200, 40).tobytes()).hexdigest())
"""


def test_the_bytes_do_not_depend_on_threads():
    digests = set()
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        env = {**os.environ, **dict.fromkeys(names, threads)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=env,
            check=True,
        )
        digests.add(done.stdout.strip())
    here = reduce_features(sparse(3000, 200)[1], 3000, 200, 40)
    assert digests == {hashlib.sha256(here.tobytes()).hexdigest()}


@given(rows=st.integers(1, 7), columns=st.integers(1, 30), seed=st.integers(0, 20))
def test_orthonormalise(rows, columns, seed):
    given_rows = np.random.default_rng(seed).standard_normal((rows, columns))
    if rows > 2:
        given_rows[1] = 3 * given_rows[0]
    found = given_rows.copy()
    orthonormalise(found)
    gram = found @ found.T
    lengths = np.diag(gram)
    assert np.all((np.abs(lengths - 1) < 1e-10) | (lengths == 0))
    assert np.abs(gram - np.diag(lengths)).max() < 1e-10
    assert (lengths > 0).sum() == np.linalg.matrix_rank(given_rows)
    np.testing.assert_allclose(given_rows @ found.T @ found, given_rows, atol=1e-8)


@given(n=st.integers(1, 12), seed=st.integers(0, 20))
def test_eigh(n, seed):
    half = np.random.default_rng(seed).standard_normal((n, n))
    matrix = half + half.T
    values, vectors = eigh(matrix)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], atol=1e-10)
    np.testing.assert_allclose(vectors @ matrix @ vectors.T, np.diag(values), atol=1e-10)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(n), atol=1e-10)
