"""Rate control's maths against dense oracles: sample, aggregated error, sensitivity."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.codec.rate_error import (
    SIGNS,
    nmse_by_depth,
    propagated,
    random_signs,
    sensitivity,
)
from stockpot.stages.codec.rate_sample import draw
from tests.stages.graphs import communities, csr

LAYERS = 3


def graph(seed=0, num_nodes=400, undirected=True):
    edges, group = communities(num_nodes=num_nodes, groups=5, seed=seed)
    indptr, indices, _ = csr(num_nodes, edges, undirected=undirected)
    order = np.random.default_rng(seed).permutation(num_nodes)
    return (
        indptr,
        indices,
        group,
        np.sort(order[: num_nodes // 2]),
        np.sort(order[num_nodes // 2 : 3 * num_nodes // 4]),
    )


def whole(indptr, indices, train, valid, **other):
    options = {"layers": LAYERS, "most_outputs": 10**6, "most_rows": 10**6, "fanout": 10**6} | other
    return draw(indptr, indices, train, valid, **options)


def mean_matrix(indptr, indices):
    """Dense D^-1 A; rows without neighbours are zero."""
    n = len(indptr) - 1
    a = sp.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(n, n)).toarray()
    return a / np.maximum(a.sum(1, keepdims=True), 1)


@pytest.mark.parametrize("undirected", [True, False])
def test_aggregated_error_of_a_whole_graph_is_the_dense_one(undirected):
    indptr, indices, _, train, valid = graph(undirected=undirected)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 7)).astype(np.float32) * np.arange(1, 8, dtype=np.float32)
    y = x + rng.normal(size=x.shape).astype(np.float32)
    sample = whole(indptr, indices, train, valid)
    found = [propagated(sample, v[sample.n_id].copy(), LAYERS) for v in (x, y)]
    outputs = np.r_[train, valid]
    assert np.array_equal(sample.n_id[sample.outputs], outputs)
    step, fx, fy = mean_matrix(indptr, indices), x.astype(float), y.astype(float)
    for depth, share in enumerate(nmse_by_depth(*found)):
        a, b = fx[outputs], fy[outputs]
        assert np.allclose(found[0][depth], a, atol=1e-4)
        assert share == pytest.approx(((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum(), rel=1e-4)
        fx, fy = step @ fx, step @ fy


def test_a_code_without_error_has_none_and_constant_features_have_no_scale():
    x = np.ones((1, 4, 2), np.float32)
    assert nmse_by_depth(x, x) == [0.0]
    assert nmse_by_depth(x, x + 1) == [float("inf")]


@given(
    st.integers(0, 10**6),
    st.integers(5, 200),
    st.integers(2, 60),
    st.integers(1, 6),
    st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_a_sample_holds_all_its_outputs_aggregate_and_no_more_rows(
    seed, rows, outputs, fanout, layers
):
    indptr, indices, _, train, valid = graph(seed % 7, num_nodes=200)
    options = {
        "layers": layers,
        "most_outputs": outputs,
        "most_rows": rows,
        "fanout": fanout,
        "seed": seed,
    }
    sample = draw(indptr, indices, train, valid, **options)
    again = draw(indptr, indices, train, valid, **options)
    for name in ("n_id", "hops_left", "indptr", "indices", "train", "valid"):
        assert np.array_equal(getattr(sample, name), getattr(again, name))
    assert len(sample.train)
    assert len(sample.valid)
    assert len(sample.outputs) <= max(2, outputs)
    assert len(sample.n_id) <= rows or len(sample.outputs) == 2
    assert set(sample.n_id[sample.train]) <= set(train)
    assert set(sample.n_id[sample.valid]) <= set(valid)
    assert (sample.hops_left[sample.outputs] == layers).all()
    for i, v in enumerate(sample.n_id):
        mine = sample.n_id[sample.indices[sample.indptr[i] : sample.indptr[i + 1]]]
        theirs = indices[indptr[v] : indptr[v + 1]]
        if sample.hops_left[i] == 0:
            assert len(mine) == 0
            continue
        assert len(mine) == min(fanout, len(theirs))
        assert set(mine) <= set(theirs)
        assert len(set(mine)) == len(mine)
        inside = sample.hops_left[sample.indices[sample.indptr[i] : sample.indptr[i + 1]]]
        assert (inside >= sample.hops_left[i] - 1).all()


def test_each_row_is_reached_from_an_output():
    indptr, indices, _, train, valid = graph()
    sample = draw(
        indptr, indices, train, valid, layers=2, most_outputs=20, most_rows=10**6, fanout=3
    )
    n = len(sample.n_id)
    a = sp.csr_matrix((np.ones(len(sample.indices)), sample.indices, sample.indptr), shape=(n, n))
    reached = np.zeros(n)
    reached[sample.outputs] = 1
    for _ in range(2):
        reached = np.minimum(1, reached + a.T @ reached)
    assert reached.all()


def test_sensitivity_is_the_expectation_of_the_dense_oracle():
    indptr, indices, _, train, valid = graph()
    x = np.random.default_rng(3).normal(size=(400, 6)).astype(np.float32) + 0.5
    x[train[0]] = 0
    sample = whole(indptr, indices, train, valid)
    found = sensitivity(sample, x[sample.n_id].copy(), LAYERS)
    step, outputs, power = mean_matrix(indptr, indices), np.r_[train, valid], np.eye(400)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    kept = (unit[outputs] ** 2).sum() / len(outputs)
    for depth in range(LAYERS):
        power = step @ power
        error = (power[outputs] ** 2).sum() / len(outputs)  # uncorrelated errors of norm 1
        feature = ((power @ unit)[outputs] ** 2).sum() / len(outputs) / kept
        assert found[depth] == pytest.approx(np.sqrt(error / feature), rel=0.05)
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert found[0] < 1


def test_random_signs_are_balanced_and_those_of_the_node():
    signs = random_signs(np.arange(2000))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.02
    assert np.abs(signs.T @ signs / 2000 - np.eye(SIGNS)).max() < 0.12
    assert np.array_equal(random_signs(np.array([7, 1999])), signs[[7, 1999]])
