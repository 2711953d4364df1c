import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.influence.push import _push, push_top, workspace
from stockpot.stages.influence.union import mass_inside, record_nodes
from stockpot.stages.influence.walk import walk
from tests.stages.graphs import communities, csr, dense_ppr, graphs


def frozen(values):
    values = np.ascontiguousarray(values)
    values.flags.writeable = False
    return values


def prepare(graph, alpha, eps, self_loops):
    indptr, indices, weight, _ = graph
    constants = walk(indptr, weight, self_loops=self_loops, alpha=alpha, eps=eps)
    arrays = (
        frozen(indptr),
        frozen(indices),
        frozen(np.empty(0, np.float32) if weight is None else weight),
    )
    return arrays, constants


def rows(graph, alpha, eps, self_loops):
    """Estimates and residuals of every node, dense."""
    arrays, constants = prepare(graph, alpha, eps, self_loops)
    n = len(arrays[0]) - 1
    estimate, residual = np.zeros((n, n)), np.zeros((n, n))
    for seed in range(n):
        space = workspace(constants.threshold)
        _push(*arrays, constants.spread, constants.settle, seed, alpha, *space)
        residual[seed], estimate[seed] = space[0][:, 0], space[1]
    return estimate, residual


def top(graph, seeds, *, alpha=0.25, eps=1e-3, k=4, q=3, self_loops=True, outputs=None, space=None):
    arrays, constants = prepare(graph, alpha, eps, self_loops)
    position = np.full(len(arrays[0]) - 1, -1, np.int32)
    outputs = np.sort(np.unique(seeds)) if outputs is None else outputs
    position[outputs] = np.arange(len(outputs))
    shape = len(seeds), k
    out = np.empty(shape, np.int32), np.empty(shape, np.float32)
    pairs = np.empty((len(seeds), q), np.int32), np.empty((len(seeds), q), np.float32)
    space = workspace(constants.threshold) if space is None else space
    push_top(
        *arrays,
        constants.spread,
        constants.settle,
        frozen(np.asarray(seeds, np.int32)),
        alpha,
        position,
        *space,
        *out,
        *pairs,
    )
    assert not space[0][:, 0].any()
    assert not space[1].any()
    return *out, *pairs


@pytest.mark.parametrize("eps", [2e-300, 1e-320])
def test_thresholds_below_the_mark_of_visited_nodes_end(eps):
    """Adding the mark at every visit once carried such a node across its threshold again, for
    ever."""
    edges, _ = communities(30, 3)
    graph = (*csr(30, edges)[:2], None, True)
    estimate, _ = rows(graph, 0.25, eps, self_loops=True)
    np.testing.assert_allclose(estimate, dense_ppr(*graph[:3], 0.25, True)[0], atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    graphs(), st.sampled_from([0.05, 0.25, 0.9]), st.sampled_from([1e-1, 1e-2, 1e-4]), st.booleans()
)
def test_estimates_against_a_dense_solve(graph, alpha, eps, self_loops):
    exact, degree = dense_ppr(*graph[:3], alpha, self_loops)
    estimate, residual = rows(graph, alpha, eps, self_loops)
    missing = exact - estimate
    assert missing.min() > -1e-9
    # The missing mass of a row is exactly its residuals / alpha, on any graph, walking along CSR
    # rows.
    np.testing.assert_allclose(missing.sum(1), residual.sum(1) / alpha, atol=1e-9)
    np.testing.assert_allclose(missing, residual / alpha @ exact, atol=1e-9)
    assert (residual < alpha * eps * degree + 1e-299).all()
    if graph[3]:
        assert (missing <= eps * degree + 1e-9).all()


def test_weight_scale_does_not_matter_without_loops():
    edges, _ = communities(60, 3)
    weights = np.random.default_rng(0).random(len(edges)) + 0.1
    small, large = (csr(60, edges, weights * scale) for scale in (1 / 1024, 1024.0))
    for a, b in zip(
        top((*small, True), range(60), self_loops=False),
        top((*large, True), range(60), self_loops=False),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_zero_weight_edges_are_never_walked():
    indptr, indices = np.array([0, 2, 3, 4]), np.array([1, 2, 0, 0], np.int32)
    weight = np.array([0, 1, 0, 1], np.float32)
    nodes, values, _, _ = top((indptr, indices, weight, True), [0, 1, 2], eps=1e-6)
    exact, _ = dense_ppr(indptr, indices, weight, 0.25, self_loops=True)
    np.testing.assert_allclose(values[1, :1], exact[1, 1], atol=1e-5)
    assert nodes[1].tolist() == [1, -1, -1, -1]


def test_top_k_and_pairs_are_the_largest_estimates_with_ties_by_id():
    edges, _ = communities(80, 4)
    graph = (*csr(80, edges)[:2], None, True)
    outputs = np.arange(0, 80, 2).astype(np.int32)
    estimate, _ = rows(graph, 0.25, 1e-3, True)
    nodes, values, pairs, pair_values = top(graph, outputs, k=7, q=5)
    for i, u in enumerate(outputs):
        support = np.flatnonzero(estimate[u])
        best = support[np.lexsort((support, -estimate[u, support]))]
        expected = best[:7]
        assert nodes[i, : len(expected)].tolist() == expected.tolist()
        assert (nodes[i, len(expected) :] == -1).all()
        np.testing.assert_array_equal(
            values[i, : len(expected)], estimate[u, expected].astype(np.float32)
        )
        others = [v for v in best if v % 2 == 0 and v != u][:5]
        assert (2 * pairs[i, : len(others)]).tolist() == others
        np.testing.assert_array_equal(
            pair_values[i, : len(others)], estimate[u, others].astype(np.float32)
        )


@pytest.mark.parametrize("symmetric", ["star", "bipartite", "tree"])
def test_equal_estimates_are_kept_by_rising_id(symmetric):
    """Graphs whose nodes are alike, their ids drawn: a walk meets larger ids before smaller ones of
    equal value."""
    n = 24
    edges = {
        "star": [(0, i) for i in range(1, n)],
        "bipartite": [(i, j) for i in range(n // 2) for j in range(n // 2, n)],
        "tree": [(i, (i - 1) // 3) for i in range(1, n)],
    }[symmetric]
    graph = (*csr(n, np.random.default_rng(4).permutation(n)[np.array(edges)])[:2], None, True)
    estimate, _ = rows(graph, 0.25, 1e-3, True)
    nodes, _, pairs, _ = top(graph, np.arange(n), k=6, q=4)
    tied = 0
    for u in range(n):
        best = np.lexsort((np.arange(n), -estimate[u]))
        assert nodes[u].tolist() == best[:6].tolist()
        others = best[best != u]
        assert pairs[u].tolist() == others[:4].tolist()
        tied += int((np.diff(estimate[u, best[:7]]) == 0).sum())
    assert tied > n


def test_members_have_exact_influence_near_the_kth_largest():
    edges, _ = communities(300, 6)
    graph = (*csr(300, edges)[:2], None, True)
    exact, degree = dense_ppr(*graph[:3], 0.25, self_loops=True)
    nodes, _, _, _ = top(graph, range(300), k=8, eps=2e-4)
    for u in range(300):
        members = nodes[u][nodes[u] >= 0]
        kth = np.sort(exact[u])[-8]
        if len(members) == 8:
            assert (exact[u, members] >= kth - 2e-4 * degree.max()).all()


@settings(max_examples=40, deadline=None)
@given(graphs(max_nodes=20), st.randoms(use_true_random=False))
def test_order_and_grouping_of_seeds_do_not_matter(graph, random):
    n = len(graph[0]) - 1
    seeds = np.arange(n)
    whole = top(graph, seeds, q=3)
    order = list(range(n))
    random.shuffle(order)
    shuffled = top(graph, seeds[order], q=3, outputs=seeds)
    for a, b in zip(whole, shuffled, strict=True):
        np.testing.assert_array_equal(a[order], b)
    _, constants = prepare(graph, 0.25, 1e-3, True)
    space = workspace(constants.threshold)
    single = [top(graph, [seed], q=3, outputs=seeds, space=space) for seed in order]
    for i, seed in enumerate(order):
        for a, b in zip(whole, single[i], strict=True):
            np.testing.assert_array_equal(a[seed], b[0])


@pytest.mark.parametrize("self_loops", [True, False])
def test_a_node_without_edges_keeps_its_walk(self_loops):
    nodes, values, pairs, _ = top(
        (*csr(3, [(0, 1)])[:2], None, True), [0, 2], self_loops=self_loops
    )
    assert nodes[1].tolist() == [2, -1, -1, -1]
    assert values[1, 0] == pytest.approx(1.0)
    assert (pairs == -1).all()


def test_mass_inside_is_the_share_of_the_estimate_on_the_record():
    edges, _ = communities(60, 3)
    graph = (*csr(60, edges)[:2], None, True)
    estimate, _ = rows(graph, 0.25, 1e-3, True)
    arrays, constants = prepare(graph, 0.25, 1e-3, True)
    n_id, n_ptr = np.arange(0, 60, 2, dtype=np.int32), np.array([0, 10, 30])
    seeds, record = np.array([0, 40, 7], np.int32), np.array([0, 1, 1], np.int32)
    got = mass_inside(
        *arrays,
        constants.spread,
        constants.settle,
        seeds,
        record,
        0.25,
        *workspace(constants.threshold),
        n_id,
        n_ptr,
    )
    for s in range(3):
        inside = n_id[n_ptr[record[s]] : n_ptr[record[s] + 1]]
        assert got[s] == pytest.approx(estimate[seeds[s], inside].sum() / estimate[seeds[s]].sum())


def test_a_record_holds_its_outputs_also_where_they_are_not_among_the_most_influential():
    rng = np.random.default_rng(0)
    outputs = np.sort(rng.choice(40, 12, replace=False)).astype(np.int32)
    found = np.array(
        [rng.choice(np.delete(np.arange(40), u), 3, replace=False) for u in outputs], np.int32
    )
    found[::4, 1:] = -1
    members, ptr = rng.permutation(12), np.array([0, 5, 5, 12])
    rows, row_ptr = record_nodes(outputs, members, ptr, found, 40)
    assert row_ptr[0] == 0
    for r in range(3):
        mine = members[ptr[r] : ptr[r + 1]]
        expected = {*outputs[mine].tolist(), *found[mine].reshape(-1).tolist()} - {-1}
        assert rows[row_ptr[r] : row_ptr[r + 1]].tolist() == sorted(expected)
