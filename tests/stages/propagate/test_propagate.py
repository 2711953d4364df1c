"""Features multiplied by the graph: against scipy in float64, for any threads and pieces."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.built import View
from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.codec.feature_columns import hop_name, products_of
from stockpot.stages.errors import BadInput
from stockpot.stages.pack.layers import Weights
from stockpot.stages.propagate import STAGE
from stockpot.stages.propagate.hops import Propagation
from stockpot.stages.propagate.planning import product_facts
from stockpot.stages.propagate.stage import Params, columns_at_once
from stockpot.stages.quantize import STAGE as QUANTIZE
from stockpot.stages.train.train_params import stored_hops
from stockpot.store.keys import plain
from tests.memory import run_stage
from tests.packs import features, graph_reader


def recipe(hops, model="sage", normalization="sym", self_loops=True, by="auto", alpha=0.25):
    return {
        "features.propagate": hops,
        "features.propagate_by": by,
        "batches.alpha": alpha,
        "train.model": model,
        "graph.normalization": normalization,
        "graph.self_loops": self_loops,
    }


def dense(g, adj, normalization, self_loops):
    """M as f8[N, N], by the words of the documentation."""
    n = g.facts["num_nodes"]
    indptr, indices = g.arrays["indptr"], g.arrays["indices"]
    weight = g.arrays["weight"].astype(np.float64) if "weight" in g.arrays else None
    if adj == "mean":
        a = sp.csr_matrix((np.ones(len(indices)), indices, indptr), (n, n)).toarray()
        return a / np.maximum(a.sum(1, keepdims=True), 1)
    values = np.ones(len(indices)) if weight is None else weight
    a = sp.csr_matrix((values, indices, indptr), (n, n)).toarray() + self_loops * np.eye(n)
    degree = a.sum(1)
    if normalization == "none":
        return a
    power = -0.5 if normalization == "sym" else -1.0
    s = np.where(degree > 0, np.maximum(degree, 1e-300) ** power, 0)
    return s[:, None] * a * s[None, :] if normalization == "sym" else s[:, None] * a


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    hops=st.integers(1, 4),
    adj=st.sampled_from(["mean", "norm"]),
    normalization=st.sampled_from(["sym", "rw", "none"]),
    self_loops=st.booleans(),
    directed=st.booleans(),
    weighted=st.booleans(),
    sparse=st.booleans(),
    columns=st.integers(1, 9),
    threads=st.integers(1, 3),
    alpha=st.sampled_from([0.0, 0.1, 0.9]),
)
def test_products_are_those_of_float64(
    tmp_path_factory, seed, hops, adj, normalization, self_loops, directed, weighted, sparse,
    columns, threads, alpha,
):  # fmt: skip
    g = graph_reader(
        nodes=60, degree=3, features=7, seed=seed, directed=directed, weighted=weighted,
        sparse=sparse,
    )  # fmt: skip
    params = Params(hops, adj, normalization, self_loops, columns, alpha)
    reader = run_stage(STAGE, params, {"graph": g}, tmp_path_factory.mktemp("out"), threads=threads)
    found = Features.of({"graph": g, "propagated": reader})
    assert found.num_features == reader.facts["num_features"] == 7 * (hops + 1)
    own, m = features(g).astype(np.float64), dense(g, adj, normalization, self_loops)
    ((first, block),) = found.chunks()
    assert first == 0
    np.testing.assert_array_equal(block[:, :7], own.astype(np.float32))
    expected = own
    for hop in range(1, hops + 1):
        expected = (1 - alpha) * (m @ expected) + alpha * own  # arXiv 1810.05997, equation 5
        mine = block[:, 7 * hop : 7 * (hop + 1)]
        np.testing.assert_allclose(
            mine, expected, rtol=2e-6 * hop, atol=2e-6 * np.abs(expected).max()
        )
    ids = np.array([3, 0, 59, 3])
    np.testing.assert_array_equal(found.rows(ids), block[ids])


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    alpha=st.floats(0.05, 0.9),
    normalization=st.sampled_from(["sym", "rw"]),
    self_loops=st.booleans(),
    directed=st.booleans(),
    weighted=st.booleans(),
)
def test_steps_of_pagerank_end_at_its_solution(
    seed, alpha, normalization, self_loops, directed, weighted
):
    """Of 300 steps; and step by step the distance shrinks by 1 - alpha at least, in the norm in
    which the matrix enlarges nothing."""
    g = graph_reader(
        nodes=50, degree=3, features=4, seed=seed, directed=directed, weighted=weighted
    )
    if directed and normalization == "sym":
        normalization = "rw"  # both sides by in-degrees: such a matrix may enlarge
    m = dense(g, "norm", normalization, self_loops)
    x = features(g).astype(np.float32)
    exact = np.linalg.solve(np.eye(50) - (1 - alpha) * m, alpha * x.astype(np.float64))
    matrix = Propagation(
        Weights("norm", normalization, "none", self_loops),
        g.arrays["indptr"],
        g.arrays["indices"],
        g.arrays.get("weight"),
    )
    order = 2 if normalization == "sym" else np.inf
    left = [np.linalg.norm(x - exact, order)]
    last = []

    def done(hop, product):
        left.append(np.linalg.norm(product - exact, order))
        last[:] = [product.copy()]

    matrix.hops(x.copy(), 300, 1, done, x, alpha)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(last[0], exact, rtol=1e-5, atol=1e-5 * scale)
    for before, after in pairwise(left):
        assert after <= (1 - alpha) * before + 1e-4 * scale


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_pieces_and_threads_change_no_byte(tmp_path, alpha):
    g = graph_reader(nodes=9000, degree=6, features=20, seed=3)
    whole = Params(3, "mean", "none", self_loops=False, columns=20, alpha=alpha)
    rows = [
        next(iter(Features.of({"graph": g, "propagated": reader}).chunks()))[1]
        for reader in (
            run_stage(STAGE, whole, {"graph": g}, tmp_path / "a"),
            run_stage(STAGE, whole, {"graph": g}, tmp_path / "b", threads=4),
            run_stage(STAGE, replace(whole, columns=16), {"graph": g}, tmp_path / "c", threads=2),
        )
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_each_model_gets_the_matrix_that_it_reads():
    facts = {"graph": {"features": "dense", "num_features": 5, "num_nodes": 10}}
    assert STAGE.resolve(recipe(2, "gcn", "rw", self_loops=False), facts) == Params(
        2, "norm", "rw", self_loops=False, columns=5
    )
    for model in ("sage", "gat", "gin", "mine:model"):
        assert STAGE.resolve(recipe(1, model, "rw"), facts) == Params(
            1, "mean", "none", self_loops=False, columns=5
        )


def test_a_recipe_names_another_matrix():
    facts = {"graph": {"features": "dense", "num_features": 5, "num_nodes": 10}}
    mean = Params(2, "mean", "none", self_loops=False, columns=5)
    norm = Params(2, "norm", "rw", self_loops=True, columns=5)
    for model in ("gcn", "sage", "sign", "sgc"):
        for by, expected in {
            "mean": mean,
            "norm": norm,
            "ppr": replace(norm, alpha=0.1),
        }.items():
            assert STAGE.resolve(recipe(2, model, "rw", by=by, alpha=0.1), facts) == expected
    with pytest.raises(BadInput, match=r"graph.normalization: .* expected sym or rw, found none"):
        STAGE.resolve(recipe(2, "sign", "none", by="ppr"), facts)
    # What does not go back to the features is named as it was before there was a choice.
    assert "alpha" not in plain(norm)
    assert "alpha" not in product_facts(norm, 10, 5)


def test_no_layer_is_taken_for_a_step_of_pagerank():
    """A product of the very matrix that the model reads, but for the return, is no layer of it."""
    facts = {"graph": {"features": "dense", "num_features": 5, "num_nodes": 10}}
    for by, hops in {"auto": 2, "norm": 2, "ppr": 0, "mean": 0}.items():
        asked = recipe(2, "gcn", by=by)
        products = product_facts(STAGE.resolve(asked, facts), 10, 5)
        packed = products_of({"propagated": products})
        assert stored_hops("gcn", 3, asked, packed) == hops


@pytest.mark.parametrize(
    ("nodes", "columns", "expected"),
    [
        (1000, 384, 384),  # all at once
        (10**7, 128, 16),  # 40 MB a column: 26 fit in a GiB, whole lines of 16 of them
        (111_059_956, 128, 9),  # 444 MB a column: as many as 4 GiB hold
        (10**10, 128, 1),
    ],
)
def test_columns_of_a_task_follow_from_counts(nodes, columns, expected):
    assert columns_at_once(nodes, columns) == expected


def test_codes_hold_the_products(tmp_path):
    g = graph_reader(features=6, sparse=True)
    products = run_stage(
        STAGE, STAGE.resolve(recipe(2), {"graph": g.facts}), {"graph": g}, tmp_path / "p"
    )
    inputs = {"graph": g, "propagated": products}
    asked = {"features.codec": "auto", "features.lossless_up_to": "2GB"}
    params = QUANTIZE.resolve(asked, {role: reader.facts for role, reader in inputs.items()})
    reader = run_stage(QUANTIZE, params, inputs, tmp_path / "q")
    rows = np.ascontiguousarray(reader.array("codes")).view("<f4")
    expected = np.concatenate(
        [features(g), products.array(hop_name(1, 0)), products.array(hop_name(2, 0))], 1
    )
    assert reader.facts["codec"] == "fp32"
    assert reader.facts["num_features"] == 18
    np.testing.assert_array_equal(rows, expected)
    cost = QUANTIZE.cost(params, {role: reader.facts for role, reader in inputs.items()})
    assert cost.written == reader.facts["code_bytes"] == rows.nbytes


def test_features_that_are_not_there_are_refused():
    with pytest.raises(BadInput, match=r"features.propagate: expected node features, found none"):
        STAGE.resolve(recipe(1), {"graph": {"features": "none", "num_features": 0}})


def test_sums_beyond_float32_are_refused_by_node_and_column(tmp_path):
    g = graph_reader(nodes=40, degree=10, features=3)
    g.arrays["x"] = np.zeros((40, 3), np.float32)
    g.arrays["x"][:, 1] = 3e38
    params = Params(1, "norm", "none", self_loops=True, columns=2)
    with pytest.raises(BadInput, match=r"after hop 1 at node \d+, column 1") as error:
        run_stage(STAGE, params, {"graph": g}, tmp_path)
    assert "features.propagate=0" in error.value.fix


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused(tmp_path, value):
    g = graph_reader(nodes=40, features=3)
    g.arrays["x"] = g.arrays["x"].copy()
    g.arrays["x"][7, 2] = value
    params = STAGE.resolve(recipe(1), {"graph": g.facts})
    with pytest.raises(BadInput, match="at node 7, column 2"):
        run_stage(STAGE, params, {"graph": g}, tmp_path)


def test_projected_bytes_are_written(tmp_path):
    g = graph_reader(nodes=300, features=5)
    params = STAGE.resolve(recipe(3), {"graph": g.facts})
    reader = run_stage(STAGE, params, {"graph": g}, tmp_path)
    written = sum(array.nbytes for array in reader.arrays.values())
    assert STAGE.cost(params, {"graph": g.facts}).written == written


@pytest.mark.parametrize(
    ("hops", "by", "said"), [(0, "ppr", True), (0, "auto", False), (2, "ppr", False)]
)
def test_a_matrix_that_multiplies_nothing_is_said_to_have_no_effect(hops, by, said):
    values = {"features.propagate": hops, "features.propagate_by": by}
    remarks = list(STAGE.reporting.remarks(View(values, {})))
    assert bool(remarks) is said
    assert all("propagate_by: ppr has no effect" in line for line in remarks)
