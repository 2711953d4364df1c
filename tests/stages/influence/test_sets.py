import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.influence.batch_params import Params
from stockpot.stages.influence.push import workspace
from stockpot.stages.influence.sets import holding, largest, push_set
from stockpot.stages.influence.walk_inputs import set_walk
from tests.stages.graphs import communities, csr, dense_ppr, graphs, reader

ORIENTATIONS = ("transpose", "reference")


def walk_for(graph, alpha, eps, self_loops, orientation):
    params = Params(
        "batch",
        "train",
        "train",
        alpha,
        eps,
        0,
        self_loops,
        9,
        0,
        ratio=1.0,
        orientation=orientation,
    )
    return set_walk(params, {"graph": reader(*graph[:3], directed=not graph[3])})


def push(walk, seeds, alpha, space=None):
    """(nodes, estimates) of one set, the workspace checked to be left clean."""
    space = workspace(walk.threshold) if space is None else space
    seeds = np.asarray(seeds, np.int32)
    nodes, values = push_set(
        *walk.arrays, walk.leaving, walk.entering, walk.settle, seeds, alpha, *space
    )
    assert not space[0][:, 0].any()
    assert not space[1].any()
    assert len(np.unique(nodes)) == len(nodes)
    return nodes, values


def dense(walk, seeds, alpha):
    out = np.zeros(len(walk.settle))
    nodes, values = push(walk, seeds, alpha)
    out[nodes] = values
    return out


@st.composite
def sets(draw):
    graph = draw(graphs())
    return graph, draw(st.lists(st.integers(0, len(graph[0]) - 2), min_size=1, unique=True))


@settings(max_examples=150, deadline=None)
@given(
    sets(),
    st.sampled_from([0.05, 0.25, 0.9]),
    st.sampled_from([0.5, 1e-1, 1e-2, 1e-4]),
    st.booleans(),
)
def test_transpose_against_a_dense_solve(drawn, alpha, eps, self_loops):
    graph, seeds = drawn
    exact, degree = dense_ppr(*graph[:3], alpha, self_loops)
    estimate = dense(walk_for(graph, alpha, eps, self_loops, "transpose"), seeds, alpha)
    missing = exact[seeds].sum(0) - estimate
    assert missing.min() > -1e-9
    assert (estimate[seeds] > 0).all()
    # missing = residual / alpha @ Pi, so the residuals can be had back: none is negative, none at
    # its threshold.
    residual = alpha * np.linalg.solve(exact.T, missing)
    assert residual.min() > -1e-9
    assert (residual < alpha * eps * degree + 1e-9).all()
    np.testing.assert_allclose(missing.sum(), residual.sum() / alpha, atol=1e-8)
    if graph[3]:
        assert (missing <= eps * degree + 1e-9).all()
        assert (missing / len(seeds) <= eps * degree + 1e-9).all()


@settings(max_examples=150, deadline=None)
@given(
    sets(), st.sampled_from([0.05, 0.25, 0.9]), st.sampled_from([0.5, 1e-2, 1e-4]), st.booleans()
)
def test_reference_against_its_dense_iteration(drawn, alpha, eps, self_loops):
    graph, seeds = drawn
    exact, degree = dense_ppr(*graph[:3], alpha, self_loops)
    estimate = dense(walk_for(graph, alpha, eps, self_loops, "reference"), seeds, alpha)
    eps *= degree.mean()
    P = (np.eye(len(exact)) - alpha * np.linalg.inv(exact)) / (1 - alpha)
    T = np.zeros(len(exact))
    T[seeds] = 1 / len(seeds)
    X = T
    for _ in range(50):
        X = (1 - alpha) * P @ X + alpha * T
    gap = (1 - alpha) ** 50  # what 50 rounds leave
    missing = X - estimate / len(seeds)
    assert missing.min() > -gap - 1e-9
    assert missing.max() <= eps / len(seeds) + gap + 1e-9
    residual = (np.eye(len(exact)) - (1 - alpha) * P) @ (exact[:, seeds].sum(1) - estimate)
    assert residual.min() > -1e-9
    assert residual.max() < alpha * eps + 1e-9


def test_orientations_differ_by_degree_on_undirected_graphs():
    edges, _ = communities(120, 4)
    graph = (*csr(120, edges)[:2], None, True)
    exact, degree = dense_ppr(*graph[:3], 0.25, self_loops=True)
    forward, backward = (
        dense(walk_for(graph, 0.25, 1e-7, True, o), [7], 0.25) for o in ORIENTATIONS
    )
    np.testing.assert_allclose(forward, exact[7], atol=1e-5)
    np.testing.assert_allclose(backward, exact[7] * degree[7] / degree, atol=1e-5)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_sets_leave_no_trace_and_their_order_hardly_matters(orientation):
    edges, group = communities(200, 5)
    graph = (*csr(200, edges)[:2], None, True)
    walk = walk_for(graph, 0.25, 1e-3, True, orientation)
    space = workspace(walk.threshold)
    every = [np.flatnonzero(group == g) for g in range(5)]
    for seeds in (*every, every[2], every[0]):
        fresh, again = push(walk, seeds, 0.25), push(walk, seeds, 0.25, space)
        np.testing.assert_array_equal(fresh[0], again[0])
        np.testing.assert_array_equal(fresh[1], again[1])
    # Another order of the seeds is another order of pushes: both keep the bound.
    turned = dense(walk, every[0][::-1], 0.25)
    degree = np.diff(graph[0]) + 1
    limit = 1e-3 * (degree if orientation == "transpose" else degree.mean())
    assert (np.abs(turned - dense(walk, every[0], 0.25)) <= limit).all()


def test_a_hub_below_its_threshold_is_pushed_once():
    star = (*csr(40, [(0, i) for i in range(1, 40)])[:2], None, True)
    walk = walk_for(star, 0.25, 0.5, True, "transpose")  # 0.25 < 0.25 * 0.5 * 40
    nodes, values = push(walk, [0], 0.25)
    assert nodes.tolist() == [0]
    assert values[0] == pytest.approx(0.25 / (1 - 0.75 / 40))
    nodes, _ = push(walk, [0, 3], 0.25)
    assert {0, 3} <= set(nodes.tolist())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_isolated_nodes_and_one_node_keep_their_walk(orientation):
    for n in (1, 4):
        walk = walk_for((*csr(n, [])[:2], None, True), 0.25, 1e-3, False, orientation)
        nodes, values = push(walk, [n - 1], 0.25)
        assert nodes.tolist() == [n - 1]
        assert values[0] == pytest.approx(1.0)


def test_work_does_not_grow_with_the_graph():
    edges, _ = communities(300, 6)
    far = np.concatenate([edges, edges + 300, edges + 600])
    small, large = (
        push(walk_for((*csr(n, e)[:2], None, True), 0.25, 1e-3, True, "transpose"), range(20), 0.25)
        for n, e in ((300, edges), (900, far))
    )
    for a, b in zip(small, large, strict=True):
        np.testing.assert_array_equal(a, b)


def test_largest_takes_ties_by_id():
    nodes, values = np.array([9, 4, 7, 1], np.int32), np.array([0.5, 2.0, 0.5, 0.1])
    assert largest(nodes, values, 2).tolist() == [4, 7]
    assert largest(nodes, values, 3).tolist() == [4, 7, 9]
    assert largest(nodes, values, 10).tolist() == [4, 7, 9, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.5, 1.0, 3.0]), min_size=1, max_size=7),
    st.sampled_from([0.1, 0.5, 0.77, 0.9, 1.0]),
    st.data(),
)
def test_holding_is_the_smallest_set_with_the_share(values, share, data):
    nodes, values = np.arange(len(values), dtype=np.int32)[::-1], np.array(values)
    outputs = np.array(data.draw(st.lists(st.sampled_from(nodes.tolist()), unique=True)), np.int32)
    got = set(holding(nodes, values, share, outputs).tolist()) | set(outputs.tolist())
    mass = dict(zip(nodes.tolist(), values.tolist(), strict=True))
    assert sum(mass[v] for v in got) >= share * values.sum() - 1e-12
    others = [v for v in nodes.tolist() if v not in outputs]
    least = next(
        size
        for size in range(len(others) + 1)
        if any(
            sum(mass[v] for v in (*chosen, *outputs.tolist())) >= share * values.sum() - 1e-12
            for chosen in itertools.combinations(others, size)
        )
    )
    assert len(got) - len(outputs) == least


def test_holding_takes_equal_values_by_id():
    nodes, values = np.array([9, 4, 7, 2, 5], np.int32), np.array([0.2, 0.2, 0.2, 0.2, 0.2])
    assert holding(nodes, values, 0.55, np.array([], np.int32)).tolist() == [2, 4, 5]
    assert holding(nodes, values, 0.55, np.array([9], np.int32)).tolist() == [9, 2, 4]
