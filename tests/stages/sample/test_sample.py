import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import kstest

from stockpot.stages.errors import BadInput
from stockpot.stages.kernels.splitmix import mixed64
from stockpot.stages.sample.batch import Graph, Sampler, Sampling
from stockpot.stages.sample.importance import expected, importances
from stockpot.stages.sample.relabel import slots
from stockpot.stages.sample.variates import (
    drift,
    edge_key,
    inverse_normal,
    key,
    uniform,
    variate,
)
from tests.stages.graphs import csr

GOLDEN, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
KINDS = [
    {"method": "neighbor"},
    {"method": "labor"},
    {"method": "labor", "sequential": True},
    {"method": "labor", "importance_sampling": 1},
    {"method": "labor", "importance_sampling": -1},
]


def slow_uniform(z, vertex):
    bits = mixed64((z + (vertex + 1) * GOLDEN) & MASK)
    return ((bits >> 12) * 2 + 1) * 2.0**-53


def slow_variates(turn, layer, vertices, row=None):
    """r of each vertex, in Python integers and scipy's normal quantiles."""
    first, second = turn.first[layer], turn.second[layer]
    if row is not None:
        first, second = (mixed64((z + (row + 1) * GOLDEN) & MASK) for z in (first, second))
    n = [
        turn.cos * ndtri(slow_uniform(first, int(v)))
        + turn.sin * ndtri(slow_uniform(second, int(v)))
        for v in vertices
    ]
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in n])


def random_graph(nodes, edges, seed=0, weighted=False, blocks=1):
    rng = np.random.default_rng(seed)
    # A few hubs, so that rows differ in length and sources are shared.
    ends = (nodes * rng.random((edges, 2)) ** [2.0, 1.0]).astype(int)
    values = rng.uniform(0.1, 3.0, edges) if weighted else None
    indptr, indices, weight = csr(nodes, ends, values, undirected=False)
    block = rng.integers(0, blocks, nodes) if blocks > 1 else None
    return Graph.of(indptr, indices, weight if weighted else None, block, blocks)


@st.composite
def samplings(draw):
    return Sampling(
        **draw(st.sampled_from(KINDS)),
        fanouts=tuple(draw(st.lists(st.sampled_from([1, 2, 3, 7, -1]), min_size=1, max_size=3))),
        layer_dependency=draw(st.booleans()),
        kappa=draw(st.sampled_from([1, 2, 5, None])),
        seed=draw(st.integers(0, 3)),
    )


@st.composite
def cases(draw):
    nodes = draw(st.integers(2, 60))
    graph = random_graph(
        nodes,
        draw(st.integers(1, 300)),
        draw(st.integers(0, 5)),
        draw(st.booleans()),
        draw(st.sampled_from([1, 4])),
    )
    outputs = draw(st.lists(st.integers(0, nodes - 1), min_size=1, max_size=8, unique=True))
    return graph, np.array(outputs, np.int32), draw(samplings()), draw(st.integers(0, 9))


def row_of(graph, v):
    span = slice(int(graph.indptr[v]), int(graph.indptr[v + 1]))
    return graph.indices[span], (
        graph.weight[span] if graph.weighted else np.ones(span.stop - span.start)
    ).astype(float)


def solved(A, share, k):
    """c by bisection: the published equation, nothing else; p = min(1, c share)."""
    held = A > 0
    A, share, d = A[held], share[held], held.sum()
    if d == 0:
        return 0.0
    top = 1 / share.min()
    if k < 0 or k >= d:
        return top
    target = A.sum() ** 2 * (1 / k - 1 / d) + (A**2).sum()
    return brentq(
        lambda c: (A**2 / np.minimum(1, c * share)).sum() - target,
        1e-12 * top,
        top,
        xtol=1e-14,
        rtol=1e-13,
    )


def brute(graph, how, turn, layer, rows, k):
    """{row: {source: 1 / p}} of one hop, straight from the definitions."""
    lists = {v: row_of(graph, v) for v in rows}
    kept = {}
    if how.method == "neighbor" or how.sequential:
        for v, (sources, A) in lists.items():
            r = slow_variates(turn, layer, sources, row=v if how.method == "neighbor" else None)
            q = np.divide(r, A, out=np.full(len(A), np.inf), where=A > 0)
            order = np.argsort(q)[: len(q) if k < 0 else k]
            tau = np.sort(q)[k] if 0 <= k < len(q) else np.inf
            kept[v] = {int(sources[e]): 1 / min(1.0, A[e] * tau) for e in order if A[e] > 0}
        return kept
    pi, updates = np.ones(graph.num_nodes), 0

    def share(sources, A):
        return pi[sources] if updates else A

    def scales():
        return {v: solved(A, share(sources, A), k) for v, (sources, A) in lists.items()}

    def reach(c):
        best = np.zeros(graph.num_nodes)
        for v, (sources, A) in lists.items():
            np.maximum.at(best, sources, c[v] * (np.ones(len(A)) if updates else A))
        return best

    c, before = scales(), np.inf
    while updates != how.importance_sampling:
        best = reach(c)
        now = np.minimum(1, pi * best).sum()
        if how.importance_sampling < 0 and abs(before - now) <= 1e-4 * now:
            break
        before = now
        pi = np.where(best > 0, pi * best, pi)
        updates += 1
        c = scales()
    for v, (sources, A) in lists.items():
        p = np.minimum(1, c[v] * share(sources, A))
        p[p > 1 - 1e-12] = 1
        r = slow_variates(turn, layer, sources)
        kept[v] = {int(t): 1 / x for t, x, u in zip(sources, p, r, strict=True) if u <= x}
    return kept


def test_variates_are_those_of_their_definition():
    for z in (key(0), key(7, 1), MASK):
        assert [uniform(np.uint64(z), v) for v in (0, 5, 2**31)] == [
            slow_uniform(z, v) for v in (0, 5, 2**31)
        ]
        assert int(edge_key(np.uint64(z), 9)) == mixed64((z + 10 * GOLDEN) & MASK)
    u = np.concatenate(
        [
            10.0 ** -np.arange(1, 16.0),
            np.linspace(1e-6, 1 - 1e-6, 999),
            1 - 2.0 ** -np.arange(2, 52.0),
        ]
    )
    assert np.allclose([inverse_normal(x) for x in u], ndtri(u), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("phase", [0, 1, 3])
def test_drifting_variates_stay_uniform_and_correlate_as_published(phase):
    n, kappa = 20_000, 4

    def values(batch):
        turn = drift(3, batch, kappa, 1)
        keys = np.uint64(turn.first[0]), np.uint64(turn.second[0])
        return np.array([variate(*keys, turn.cos, turn.sin, v) for v in range(n)])

    one, two = values(phase), values(phase + 1)
    assert kstest(one, "uniform").pvalue > 1e-4
    found = np.corrcoef(ndtri(one), ndtri(two))[0, 1]
    assert abs(found - math.cos(math.pi / (2 * kappa))) < 5 / math.sqrt(n)
    assert abs(np.corrcoef(ndtri(one), ndtri(values(phase + kappa)))[0, 1]) < 1  # drifted
    assert abs(np.corrcoef(ndtri(one), ndtri(values(phase + 2 * kappa)))[0, 1]) < 5 / math.sqrt(n)


def test_kappa_one_draws_anew_and_no_end_draws_once():
    assert drift(0, 1, 1, 2).first == drift(0, 0, 1, 2).second != drift(0, 0, 1, 2).first
    assert drift(0, 9, None, 2) == drift(0, 0, None, 2)
    assert len(set(drift(0, 0, 1, 3).first)) == 3
    assert len(set(drift(0, 0, 1, 3, layer_dependency=True).first)) == 1


@settings(deadline=None, max_examples=60)
@given(cases())
def test_hops_are_those_of_the_definition(case):
    graph, outputs, how, number = case
    found = Sampler(graph, how).batch(number, outputs)
    turn = how.drift(number)
    ends = np.cumsum(found.num_sampled_nodes)
    assert sorted(found.n_id[: ends[0]]) == sorted(outputs)
    assert len(set(found.n_id.tolist())) == len(found.n_id) == ends[-1]
    for layer, k in enumerate(how.fanouts):
        rows, csr_l = found.n_id[: ends[layer]], found.layers[layer]
        expected_rows = brute(graph, how, turn, layer, rows.tolist(), k)
        assert len(csr_l.indptr) == len(rows) + 1
        sources = set()
        for i, v in enumerate(rows.tolist()):
            span = slice(csr_l.indptr[i], csr_l.indptr[i + 1])
            columns = csr_l.indices[span]
            assert (np.diff(columns) > 0).all()
            assert (columns < ends[layer + 1]).all()
            picked = found.n_id[columns].tolist()
            assert set(picked) == set(expected_rows[v])
            sources |= set(picked)
            scale = np.array([expected_rows[v][t] for t in picked])
            if csr_l.edge_w is None:
                assert np.allclose(scale, scale[:1])
            else:
                assert np.allclose(
                    csr_l.edge_w[span], scale / (scale.mean() if len(scale) else 1), rtol=1e-5
                )
            if graph.weighted:
                weights = dict(zip(*(a.tolist() for a in row_of(graph, v)), strict=True))
                assert csr_l.weight[span].tolist() == [weights[t] for t in picked]
        new = found.n_id[ends[layer] : ends[layer + 1]]
        assert set(new.tolist()) == sources - set(rows.tolist())


@settings(deadline=None)
@given(cases())
def test_hops_are_sorted_by_block_and_id(case):
    graph, outputs, how, number = case
    found = Sampler(graph, how).batch(number, outputs)
    blocks = len(graph.starts) - 1
    place = graph.rank if graph.rank.size else np.arange(graph.num_nodes)
    block = np.searchsorted(graph.starts, place, side="right") - 1
    for pointer in found.block_ptr:
        assert (np.diff(pointer) >= 0).all()
        for b in range(blocks):
            run = found.n_id[pointer[b] : pointer[b + 1]]
            assert (np.diff(run) > 0).all()
            assert (block[run] == b).all()
    assert found.block_ptr[0, 0] == 0
    assert (found.block_ptr[1:, 0] == found.block_ptr[:-1, -1]).all()


@settings(deadline=None)
@given(cases(), st.integers(1, 3))
def test_ranks_that_sample_their_own_outputs_have_the_edges_of_one_process(case, ranks):
    graph, outputs, how, number = case
    if how.importance_sampling:
        return  # importances are of all rows of a hop together

    def edges(found):
        return [
            {
                (int(found.n_id[i]), int(found.n_id[j]))
                for i in range(len(one.indptr) - 1)
                for j in one.indices[one.indptr[i] : one.indptr[i + 1]]
            }
            for one in found.layers
        ]

    sampler = Sampler(graph, how)
    whole = edges(sampler.batch(number, outputs))
    parts = [
        edges(sampler.batch(number, outputs[r::ranks]))
        for r in range(ranks)
        if len(outputs[r::ranks])
    ]
    assert [set().union(*of_layer) for of_layer in zip(*parts, strict=True)] == whole


@settings(deadline=None)
@given(cases())
def test_a_batch_depends_on_nothing_sampled_before(case):
    graph, outputs, how, number = case
    used, fresh = Sampler(graph, how), Sampler(graph, how)
    for other in range(3):
        used.batch(other, np.arange(graph.num_nodes, dtype=np.int32))
    one, two = used.batch(number, outputs), fresh.batch(number, outputs[::-1].copy())
    assert one.n_id.tobytes() == two.n_id.tobytes()
    for a, b in zip(one.layers, two.layers, strict=True):
        assert a.indices.tobytes() == b.indices.tobytes()
        assert a.edge_w is None or a.edge_w.tobytes() == b.edge_w.tobytes()
    assert (used.local == -1).all()
    assert not used.bits.any()
    assert (used.memo == -1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kappa", [1, 3])
def test_inclusion_probabilities_and_unbiased_estimates(kind, weighted, kappa):
    """Counts over independent batches against p; the mean weighted by 1 / p against the mean over
    all neighbours."""
    graph = random_graph(40, 900, seed=1, weighted=weighted)
    how = Sampling(**kind, fanouts=(4,), kappa=kappa)
    sampler, rows = Sampler(graph, how), np.arange(40, dtype=np.int32)
    runs = 4000
    taken, inverse = np.zeros(len(graph.indices)), np.zeros(len(graph.indices))
    x = np.random.default_rng(0).normal(size=(len(graph.indices)))
    sums = np.zeros((runs, 40))
    owner = np.repeat(np.arange(40), np.diff(graph.indptr))
    for run in range(runs):
        # Every kappa-th batch is independent of the others only two groups on; phases differ with
        # the run.
        ptr, edge, scale = sampler.pick(rows, 4, how.drift(run * 2 * kappa + run % kappa), 0)
        d = np.diff(graph.indptr)
        one = scale if scale.size else np.repeat(np.maximum(d / 4, 1), np.diff(ptr))
        taken[edge] += 1
        inverse[edge] = one
        A = graph.weight[edge] if weighted else np.ones(len(edge))
        np.add.at(sums[run], owner[edge], one * A * x[edge])
    if not (
        weighted and (how.method == "neighbor" or how.sequential)
    ):  # there p is known given the others only
        p = np.where(inverse > 0, 1 / np.maximum(inverse, 1), 0)
        error = np.sqrt(p * (1 - p) / runs)
        assert (np.abs(taken / runs - p) <= 5 * error + 1e-9 + (inverse == 0) * 5e-3).all()
    A = graph.weight if weighted else np.ones(len(x))
    exact = np.bincount(owner, A * x, 40)
    error = sums.std(0) / math.sqrt(runs)
    assert (np.abs(sums.mean(0) - exact) <= 5 * error + 1e-5).all()
    counts = taken.reshape(-1).sum() / runs
    if how.method == "neighbor" or how.sequential or (not weighted and not how.importance_sampling):
        assert counts == pytest.approx(np.minimum(np.diff(graph.indptr), 4).sum(), rel=0.02)


@pytest.mark.parametrize("k", [3, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_edges_of_weight_zero_are_never_taken(kind, k):
    graph = random_graph(40, 900, seed=1, weighted=True)
    weight = np.where(
        np.random.default_rng(5).random(len(graph.indices)) < 0.4, 0, graph.weight
    ).astype(np.float32)
    graph = Graph.of(graph.indptr, graph.indices, weight)
    how = Sampling(**kind, fanouts=(k,))
    sampler, rows = Sampler(graph, how), np.arange(40, dtype=np.int32)
    taken = np.zeros(len(weight), int)
    for run in range(60):
        taken[sampler.pick(rows, k, how.drift(run), 0)[1]] += 1
    assert (taken[weight == 0] == 0).all()
    assert taken[weight > 0].min() == 60 if k < 0 else (taken[weight > 0] > 0).mean() > 0.9


def test_importances_solve_their_equation_and_lower_the_expected_sources():
    for weighted in (False, True):
        graph = random_graph(300, 6000, seed=2, weighted=weighted)
        arrays, rows = (graph.indptr, graph.weight), np.arange(0, 300, 2, dtype=np.int32)
        rows.flags.writeable = False
        local = np.full(300, -1, np.int32)
        slot, sources = slots(graph.indptr, graph.indices, rows, local)
        assert sources == len(
            set(graph.indices[np.repeat(np.arange(300) % 2 == 0, np.diff(graph.indptr))].tolist())
        )
        found = []
        for updates in (0, 1, 2, 5, -1):
            c, pi = np.empty(len(rows)), np.empty(sources)
            made = importances(*arrays, rows, 5, updates, slot, c, pi)
            assert made == updates or (updates == -1 and 1 <= made <= 20)
            found.append(
                expected(graph.indptr, graph.weight, rows, slot, c, pi if updates else pi[:0])
            )
            at = 0
            for i, v in enumerate(rows):
                A = row_of(graph, v)[1]
                chance = np.minimum(1, c[i] * (pi[slot[at : at + len(A)]] if updates else A))
                at += len(A)
                if len(A) > 5:
                    target = A.sum() ** 2 * (1 / 5 - 1 / len(A)) + (A**2).sum()
                    assert (A**2 / chance).sum() == pytest.approx(target, rel=1e-9)
                else:
                    assert (chance > 1 - 1e-12).all()
        assert all(a >= b * (1 - 1e-6) for a, b in pairwise(found))
        assert found[-1] < 0.95 * found[0]


def test_labor_reaches_fewer_vertices_than_neighbour_sampling():
    graph = random_graph(4000, 120_000, seed=3)
    rng = np.random.default_rng(0)
    outputs = [rng.choice(4000, 100, replace=False).astype(np.int32) for _ in range(100)]
    sizes = {}
    for name, kind in zip(
        ("neighbor", "labor-0", "labor-1", "labor-*"),
        [KINDS[0], KINDS[1], KINDS[3], KINDS[4]],
        strict=True,
    ):
        sampler = Sampler(graph, Sampling(**kind, fanouts=(5, 5)))
        sizes[name] = np.array(
            [sampler.batch(i, o).num_sampled_nodes.sum() for i, o in enumerate(outputs)]
        )
    for more, fewer in (("neighbor", "labor-0"), ("labor-0", "labor-1"), ("labor-1", "labor-*")):
        gap = sizes[more] - sizes[fewer]
        assert gap.mean() > 3 * gap.std() / math.sqrt(len(gap)), (more, fewer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fanout_larger_than_every_degree_takes_all_neighbours(kind):
    for weighted in (False, True):
        graph = random_graph(50, 400, weighted=weighted)
        outputs = np.array([3, 4, 20], np.int32)
        most = int(np.diff(graph.indptr).max())
        for k in (most, 10 * most, -1):
            found = Sampler(graph, Sampling(**kind, fanouts=(k, k))).batch(0, outputs)
            for one, rows in zip(found.layers, np.cumsum(found.num_sampled_nodes), strict=False):
                for i in range(rows):
                    columns = found.n_id[one.indices[one.indptr[i] : one.indptr[i + 1]]]
                    assert sorted(columns) == row_of(graph, found.n_id[i])[0].tolist()
                assert one.edge_w is None or np.allclose(one.edge_w, 1)


def test_larger_kappa_repeats_more_of_the_batch_before_and_no_end_repeats_all():
    graph = random_graph(3000, 150_000, seed=4)
    outputs = np.arange(0, 3000, 60, dtype=np.int32)
    for kind in KINDS[:3]:
        shares = []
        for kappa in (1, 4, 16, 64, None):
            sampler = Sampler(graph, Sampling(**kind, fanouts=(5,), kappa=kappa))
            sets = [set(sampler.batch(i, outputs).n_id.tolist()) for i in range(5)]
            shares.append(np.mean([len(a & b) / len(b) for a, b in pairwise(sets)]))
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert shares[0] < 0.6 < shares[-2]


def test_layers_that_depend_share_their_choice():
    graph = random_graph(500, 8000, seed=5)
    how = Sampling("labor", (4, 4), layer_dependency=True)
    assert how.one_csr(weighted=False)
    assert not how.one_csr(weighted=True)
    assert not Sampling("labor", (4, 5), layer_dependency=True).one_csr(weighted=False)
    found = Sampler(graph, how).batch(0, np.arange(20, dtype=np.int32))
    inner, outer = found.layers
    rows = len(inner.indptr) - 1
    assert outer.indptr[: rows + 1].tolist() == inner.indptr.tolist()
    assert outer.indices[: inner.indices.size].tolist() == inner.indices.tolist()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kappa": 0}, r"batches\.kappa: expected at least 1 .* found 0"),
        (
            {"fanouts": (10, 0)},
            (
                r"batches\.fanouts: expected numbers of neighbours from 1, or -1 for all, found "
                r"\[10, 0\]"
            ),
        ),
        ({"fanouts": ()}, r"batches\.fanouts: .* found \[\]"),
        ({"importance_sampling": -2}, r"batches\.importance_sampling: expected 0"),
        (
            {"method": "neighbor", "importance_sampling": 1},
            r"expected 0 with method 'neighbor', found 1",
        ),
        ({"method": "ladies"}, "expected neighbor or labor to sample, found 'ladies'"),
    ],
)
def test_what_cannot_be_sampled_is_refused(values, says):
    with pytest.raises(BadInput, match=says):
        Sampling(**{"method": "labor", "fanouts": (10,), **values})


@pytest.mark.parametrize("kappa", [1, 8])
def test_rows_of_a_dense_graph_choose_the_same_together_and_apart(kappa):
    graph = random_graph(
        60, 2000, seed=3
    )  # together its rows have many entries a node, apart fewer than nodes
    sampler = Sampler(graph, Sampling("labor", (4,), kappa=kappa, seed=5))
    rows = np.arange(60, dtype=np.int32)
    for batch in range(12):
        turn = sampler.how.drift(batch)
        together = sampler.pick(rows, 4, turn, 0)
        apart = [sampler.pick(rows[i : i + 1], 4, turn, 0) for i in range(60)]
        np.testing.assert_array_equal(together[1], np.concatenate([edge for _, edge, _ in apart]))
        np.testing.assert_array_equal(np.diff(together[0]), [edge.size for _, edge, _ in apart])
        assert 60 < together[1].size < 60 * 8
        assert (sampler.memo == -1).all()


def test_no_variate_of_a_drifting_batch_is_left_for_the_next():
    """Rows that read half of the nodes, so often that the variates of all nodes are drawn first."""
    indptr = np.concatenate([np.arange(0, 501, 50), np.full(90, 500)]).astype(np.int64)
    graph = Graph.of(indptr, np.tile(np.arange(50, dtype=np.int32), 10), None)
    how = Sampling(method="labor", fanouts=(5,), kappa=3)
    sampler, rows = Sampler(graph, how), np.arange(10, dtype=np.int32)
    for run in range(6):
        ptr, _, _ = sampler.pick(rows, 5, how.drift(run), 0)
        assert 0 < ptr[-1] < 500
        assert (sampler.memo == -1).all()
