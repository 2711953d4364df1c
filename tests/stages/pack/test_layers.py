import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from stockpot.stages.errors import BadInput
from stockpot.stages.loader.records import Records
from stockpot.stages.pack.join import join
from stockpot.stages.pack.layers import Weights, adjacency, transposes, trimmed
from tests.packs import dense, graph_reader, packed

HOW = [
    Weights("plain"),
    Weights("plain+loops"),
    Weights("mean"),
    Weights("norm"),
    Weights("norm", mass="row"),
    Weights("norm", self_loops=False, mass="row"),
    Weights("norm", normalization="rw"),
    Weights("norm", normalization="none", mass="row"),
]


def to_scipy(m):
    return sp.csr_matrix((m.values, m.indices, m.indptr), m.shape)


def oracle(how, a, deg):
    """f8[n, n] of a record's dense subgraph `a` and whole-graph degrees, from the formulas."""
    if how.adj in ("plain", "mean"):
        a = (a != 0).astype(float)
    if how.adj == "plain+loops":
        return (a != 0) + np.eye(len(a))
    if how.adj == "plain":
        return a
    if how.adj == "mean":
        return a / np.maximum(a.sum(1, keepdims=True), 1)
    loop = float(how.self_loops)
    full = deg + loop
    inverse = np.divide(1.0, full, out=np.zeros_like(full), where=full > 0)
    inside = a.sum(1) + loop
    out = a + loop * np.eye(len(a))
    if how.normalization == "sym":
        out = np.sqrt(inverse)[:, None] * out * np.sqrt(inverse)[None]
    elif how.normalization == "rw":
        out = inverse[:, None] * out
    if how.mass == "row":
        out *= np.divide(full, inside, out=np.zeros_like(full), where=inside > 0)[:, None]
    return out


@pytest.fixture(
    scope="module",
    params=[{}, {"directed": True, "weighted": True}],
    ids=["undirected", "directed"],
)
def some(request, tmp_path_factory):
    reader, inputs = packed(tmp_path_factory.mktemp("pack"), **request.param)
    return SimpleNamespace(records=list(Records.from_reader(reader)), a=dense(inputs["graph"]))


def matrices(how, layers, record):
    joined = join([record], layers)
    weighted = joined.deg_w is not None and how.adj == "norm"
    deg = joined.deg_w if weighted else joined.deg
    return trimmed(
        how,
        layers,
        joined.num_sampled_nodes,
        joined.indptr,
        joined.indices,
        deg,
        joined.weight if weighted else None,
    )


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("layers", [1, 2, 3, 9])
def test_trimmed_layers_equal_the_untrimmed_formula(some, how, layers):
    rng = np.random.default_rng(0)
    for record in some.records:
        a = some.a[np.ix_(record.n_id, record.n_id)]
        deg = (
            some.a[record.n_id].sum(1)
            if record.weight is not None and how.adj == "norm"
            else (some.a != 0).sum(1)[record.n_id]
        )
        full = oracle(how, a, deg.astype(float))
        made = matrices(how, layers, record)
        ends = np.cumsum(record.num_sampled_nodes)
        reach = [int(ends[min(h, len(ends) - 1)]) for h in range(layers + 1)]
        assert [m.shape for m in made] == [
            (reach[h], reach[h + 1]) for h in reversed(range(layers))
        ]
        x = rng.normal(size=(record.num_nodes, 3))
        trimmed_x, whole_x = x[: reach[layers]], x
        for m in made:
            np.testing.assert_allclose(
                to_scipy(m).toarray(), full[: m.shape[0], : m.shape[1]], rtol=2e-6, atol=1e-7
            )
            trimmed_x, whole_x = to_scipy(m) @ trimmed_x, full @ whole_x
        np.testing.assert_allclose(trimmed_x, whole_x[: record.num_outputs], rtol=1e-4, atol=1e-5)


def test_transposes_are_exact(some):
    for how in HOW:
        for m in matrices(how, 2, some.records[3]):
            t = m.transposed()
            expected = to_scipy(m).T.tocsr()
            expected.sort_indices()
            assert t.shape == expected.shape
            np.testing.assert_array_equal(t.indptr, expected.indptr)
            np.testing.assert_array_equal(t.indices, expected.indices)
            np.testing.assert_array_equal(t.values, expected.data)
            assert t.indices.dtype == t.indptr.dtype == np.int32


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("layers", [1, 2, 3, 9])
@pytest.mark.parametrize("first", [True, False])
def test_transposes_of_all_layers_are_exact(some, how, layers, first):
    undirected = some.records[0].out_deg is None
    for record in some.records:
        made = matrices(how, layers, record)
        found = transposes(made, symmetric=how.symmetric and undirected, first=first)
        assert (found[0] is None) == (not first)
        for i, (m, t) in enumerate(zip(made, found, strict=True)):
            if t is None:
                continue
            expected = m.transposed()
            assert t.shape == expected.shape
            for name in ("indptr", "indices", "values"):
                np.testing.assert_array_equal(getattr(t, name), getattr(expected, name))
            if i > 1 and m is made[i - 1]:
                assert t is found[i - 1]
            turned, places = m.turned()
            np.testing.assert_array_equal(turned.indices, expected.indices)
            np.testing.assert_array_equal(
                np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))[places], turned.indices
            )
            rows = np.repeat(np.arange(turned.shape[0]), np.diff(turned.indptr))
            np.testing.assert_array_equal(m.indices[places], rows)


def test_equal_layers_are_one_object(some):
    made = matrices(Weights("norm"), 9, some.records[0])
    assert made[0] is made[1]
    assert made[-1] is not made[-2]


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_whole_graph_is_normalised_as_pyg_does(directed, weighted):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch_geometric's import, of torch.jit
        from torch_geometric.nn.conv.gcn_conv import gcn_norm

    g = graph_reader(directed=directed, weighted=weighted)
    indptr, indices, weight = g.array("indptr"), g.array("indices"), g.arrays.get("weight")
    ours = adjacency(indptr, indices, weight=weight, adj="norm")
    target = np.repeat(np.arange(200), np.diff(indptr))
    edge_index = torch.from_numpy(np.stack([indices, target]).astype(np.int64))
    edge_weight = None if weight is None else torch.from_numpy(np.array(weight))
    index, value = gcn_norm(edge_index, edge_weight, 200)
    theirs = sp.csr_matrix((value.numpy(), (index[1].numpy(), index[0].numpy())), (200, 200))
    np.testing.assert_allclose(to_scipy(ours).toarray(), theirs.toarray(), rtol=1e-5, atol=1e-7)
    assert ours.indices.dtype == np.int32


def test_no_mass_is_lost_where_the_record_is_the_graph():
    g = graph_reader()
    plain, row = (
        adjacency(g.array("indptr"), g.array("indices"), adj="norm", mass=mass)
        for mass in ("none", "row")
    )
    np.testing.assert_array_equal(plain.values, row.values)
    rw = adjacency(g.array("indptr"), g.array("indices"), adj="norm", normalization="rw")
    np.testing.assert_allclose(to_scipy(rw).sum(1), 1.0, rtol=1e-5)


def test_isolated_nodes_stay_zero_without_loops():
    indptr, none = np.zeros(4, np.int64), np.zeros(0, np.int32)
    for how in ("mean", "plain"):
        assert adjacency(indptr, none, adj=how).values.size == 0
    alone = adjacency(indptr, none, adj="norm")
    np.testing.assert_array_equal(to_scipy(alone).toarray(), np.eye(3))
    assert adjacency(indptr, none, adj="norm", self_loops=False, mass="row").values.size == 0


@pytest.mark.parametrize(
    ("field", "value"), [("adj", "gcn"), ("normalization", "left"), ("mass", "column")]
)
def test_unknown_choices_are_named(field, value):
    with pytest.raises(BadInput, match=f"{field}: expected .*found {value}"):
        Weights(**{field: value})
