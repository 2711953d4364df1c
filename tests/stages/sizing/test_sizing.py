"""Sizes of records: what is measured is what records hold, and what is chosen is the first size
that holds enough."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

from stockpot.stages.influence import STAGE as INFLUENCE
from stockpot.stages.influence.walk import walk
from stockpot.stages.influence.walk_inputs import walk_of
from stockpot.stages.sizing import STAGE, measure
from stockpot.stages.sizing import stage as sizing_stage
from stockpot.stages.sizing.held import HOPS, held_sums
from stockpot.stages.sizing.measure import Measure
from stockpot.stages.sizing.record_size import ALL, MOST_ROWS, STEP_BYTES, Found, choose
from stockpot.stages.sizing.sample import SAMPLE, sampled_outputs
from stockpot.stages.train.train_params import resolved_mass
from stockpot.store.keys import plain
from tests.bench.inline import run
from tests.graphs import write_npz
from tests.memory import MemoryReader, run_stage
from tests.stages.graphs import communities, csr, graphs, reader
from tests.stages.influence.test_influence import VALUES, make_inputs

AUTO = {**VALUES, "batches.top_k": "auto", "batches.outputs": "auto", "batches.mix": "auto"}


@pytest.fixture(scope="module")
def sparse():
    """About 25 neighbours a node, most of them in its community."""
    return make_inputs(2400)


@pytest.fixture(scope="module")
def dense():
    """Neighbours all over the graph: no small record holds many of them."""
    rng = np.random.default_rng(0)
    graph = reader(
        *csr(1500, rng.integers(0, 1500, (45_000, 2)))[:2],
        y=rng.integers(0, 4, 1500),
        num_classes=4,
    )
    ids = np.split(rng.permutation(1500).astype(np.int32), [750, 1125])
    splits = {
        name: np.sort(part) for name, part in zip(("train", "valid", "test"), ids, strict=True)
    }
    return {
        "graph": graph,
        "split": MemoryReader(splits, {name: len(part) for name, part in splits.items()}),
    }


def sizes(inputs, tmp_path, threads=1, **values):
    inputs["graph"].facts.setdefault("num_features", 8)
    values = {**AUTO, **{name.replace("__", "."): value for name, value in values.items()}}
    params = STAGE.resolve({name: values[name] for name in STAGE.reads}, {})
    used = {role: inputs[role] for role in ("graph", "split")}
    return run_stage(STAGE, params, used, tmp_path, threads=threads).facts


def measure_of(inputs, split, random=False):
    params = STAGE.resolve({name: AUTO[name] for name in STAGE.reads}, {})
    graph, walk = walk_of(params, inputs)
    return Measure(
        graph, walk, params.alpha, inputs["split"].array(split), random, 1, lambda *_: None
    )


@given(graphs())
def test_shares_held_are_those_of_a_walk_over_the_record(case):
    indptr, indices, _, _ = case
    n = len(indptr) - 1
    n_id = np.arange(0, n, 2, dtype=np.int32) if n > 2 else np.arange(n, dtype=np.int32)
    outputs, inside = n_id[:2], set(n_id.tolist())
    hop, level, seen = dict.fromkeys(outputs.tolist(), 0), outputs.tolist(), set(outputs.tolist())
    while level:
        level = sorted(
            {u for v in level for u in indices[indptr[v] : indptr[v + 1]].tolist() if u in inside}
            - seen
        )
        seen |= set(level)
        hop |= dict.fromkeys(level, max(hop.values()) + 1)
    expected = np.zeros((3, HOPS))
    for v, h in hop.items():
        neighbours = indices[indptr[v] : indptr[v + 1]].tolist()
        count = sum(u in inside for u in neighbours)
        expected[2, min(h, HOPS - 1)] += count
        if h < HOPS:
            expected[:2, h] += (count / len(neighbours) if neighbours else 1.0, 1)
    scratch = np.full(n, -2, np.int32)
    np.testing.assert_allclose(
        held_sums(indptr, indices, n_id, outputs, scratch), expected, rtol=1e-12
    )
    assert (scratch == -2).all()


def test_a_sample_is_neighbourhoods_of_outputs():
    edges, _ = communities(3000, 60, within=1.0)
    indptr, indices, _ = csr(3000, edges)
    outputs = np.arange(0, 3000, 2, dtype=np.int32)
    arrays = (
        (indptr, indices, np.zeros(0, np.float32)),
        walk(indptr, None, self_loops=True, alpha=0.25, eps=1e-3),
        0.25,
    )
    assert sampled_outputs(*arrays, outputs, most=1500) is outputs
    found = sampled_outputs(*arrays, outputs, most=320)
    assert len(found) == 320
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) <= set(outputs.tolist())
    chosen = np.zeros(3000, bool)
    chosen[found] = True
    drawn = np.zeros(3000, bool)
    drawn[np.random.default_rng(0).choice(outputs, 320, replace=False)] = True
    # Two steps away from a sampled output there are far more sampled ones than around outputs drawn
    # one by one.
    near = [
        sum(
            mask[indices[indptr[u] : indptr[u + 1]]].sum()
            for v in np.flatnonzero(mask)
            for u in indices[indptr[v] : indptr[v + 1]]
        )
        for mask in (chosen, drawn)
    ]
    assert near[0] > 2 * near[1]


@pytest.mark.parametrize(
    ("split", "top_k", "outputs", "method"), [("train", 6, 100, "node"), ("test", 3, 200, "random")]
)
def test_what_is_measured_is_what_the_records_hold(sparse, tmp_path, split, top_k, outputs, method):
    values = {
        **VALUES,
        "split": split,
        "batches.top_k": top_k,
        "batches.outputs": outputs,
        "batches.mix": "auto",
    }
    params = INFLUENCE.resolve(
        {**values, "batches.method": method}, {role: r.facts for role, r in sparse.items()}
    )
    made = run_stage(
        INFLUENCE, params, {role: sparse[role] for role in ("graph", "split")}, tmp_path
    )
    found = measure_of(sparse, split, random=method == "random").of(top_k, outputs, 0)
    n_ptr, out_ptr = made.array("n_ptr"), made.array("out_ptr")
    assert (found.rows, found.records, found.mix) == (
        len(made.array("n_id")),
        len(n_ptr) - 1,
        params.mix or found.mix,
    )
    assert found.largest == int(np.diff(n_ptr).max())
    sums, scratch = np.zeros((3, HOPS)), np.full(2400, -2, np.int32)
    indptr, indices = (sparse["graph"].array(name) for name in ("indptr", "indices"))
    for (start, stop), (first, last) in zip(pairwise(n_ptr), pairwise(out_ptr), strict=True):
        ids = made.array("n_id")[start:stop], made.array("outputs")[first:last]
        sums += held_sums(indptr, indices, *ids, scratch)
    np.testing.assert_allclose(found.held, sums[0] / sums[1], atol=1e-6)


def test_rows_of_a_sample_are_those_of_the_split(sparse, monkeypatch):
    whole = measure_of(sparse, "test", random=True).of(3, 50, 0)
    monkeypatch.setattr(measure, "sampled_outputs", lambda *given: given[3][::4])
    found = measure_of(sparse, "test", random=True).of(3, 50, 0)
    assert found.records == whole.records
    assert found.rows == pytest.approx(whole.rows, rel=0.1)


def fake(held):
    """Records of which `held` says what they hold; a row for each neighbour kept, at most the whole
    graph."""

    def of(top_k, outputs, mix):
        records = -(-1000 // outputs)
        largest = min(outputs * (top_k + 1) // 4, 5000)
        return Found(
            top_k, outputs, mix, held(top_k, outputs), records, records * largest, largest, 0
        )

    return of


def whole(nodes):
    def of(outputs):
        records = -(-1000 // outputs)
        return Found(ALL, outputs, 0, (1.0, 1.0, 1.0), records, records * nodes, nodes, 0)

    return of


COUNTS = {
    "base": 250,
    "count": 1000,
    "fewest": 1,
    "measurable": 1000,
    "nodes": 20_000,
    "num_features": 8,
}


@pytest.mark.parametrize(
    ("held", "values", "expected"),
    [
        (lambda k, b: (0.9, 0.6), {}, (16, 250)),  # as small as they are by default
        (lambda k, b: (0.9, 0.6 if k > 16 else 0.3), {}, (32, 250)),  # more neighbours
        (lambda k, b: (0.9 if b > 250 else 0.7, 0.6), {}, (16, 500)),  # larger records
        (lambda k, b: (0.1, 0.1), {}, (ALL, 1000)),  # nothing less than the graph
        (lambda k, b: (0.1, 0.1), {"fewest": 2}, (ALL, 500)),
        (lambda k, b: (0.1, 0.1), {"top_k": 32}, (32, 250)),  # the first of those that come as near
        (lambda k, b: (0.1, 0.1), {"outputs": 100}, (16, 100)),
        (lambda k, b: (b / 1000, 0.1), {"top_k": 16}, (16, 1000)),
        (
            lambda k, b: (0.1 + k / 1000, 0.1),
            {"num_features": 20_000},
            (64, 250),
        ),  # the whole graph is too large
        (
            lambda k, b: (0.9, 0.6),
            {"nodes": 3187},
            (16, 250),
        ),  # 4 x 3187 rows: more than 3 times 4 x 1062
        (
            lambda k, b: (0.9, 0.6),
            {"nodes": 3186},
            (ALL, 250),
        ),  # as many records, and nothing is missing in them
        (lambda k, b: (0.9, 0.6), {"nodes": 12_750, "exact": True}, (16, 250)),
        (
            lambda k, b: (0.9, 0.6),
            {"nodes": 12_744, "exact": True},
            (ALL, 1000),
        ),  # inference wants no steps
        (lambda k, b: (0.9, 0.6), {"nodes": 3186, "exact": True, "outputs": 250}, (ALL, 250)),
        (lambda k, b: (0.9, 0.6), {"nodes": 3186, "top_k": 16}, (16, 250)),
        (
            lambda k, b: (0.9, 0.6),
            {"base": 100, "nodes": 1200},
            (16, 100),
        ),  # ten times the graph is too much
        (
            lambda k, b: (0.1 + k / 1000, 0.1),
            {"num_features": 200_000},
            (16, 250),
        ),  # steps are too large
        (lambda k, b: (0.1, 0.1), {"measurable": 300}, (ALL, 1000)),
    ],
)
def test_the_first_size_that_holds_enough_is_chosen(held, values, expected):
    found, looked = choose(fake(held), whole({**COUNTS, **values}["nodes"]), **{**COUNTS, **values})
    assert (found.top_k, found.outputs) == expected
    assert found in looked
    nodes, columns = ({**COUNTS, **values}[name] for name in ("nodes", "num_features"))
    for one in looked[: -1 - (found.top_k == ALL)]:
        assert (
            not one.enough or one.rows > MOST_ROWS * nodes or one.step_bytes(columns) > STEP_BYTES
        )


def test_a_size_that_can_be_paid_is_taken_before_one_that_cannot():
    def of(top_k, outputs, mix):
        rows = 90_000 if outputs == 250 else 9_000
        return Found(top_k, outputs, mix, (0.5, 0.4), -(-1000 // outputs), rows, 100, 0)

    counts = {**COUNTS, "measurable": 500, "nodes": 20_000, "top_k": 16}
    assert choose(of, whole(20_000), **counts)[0].outputs == 500


def test_the_sample_that_memory_is_projected_for_is_the_one_drawn():
    assert sizing_stage._SAMPLE == SAMPLE


def test_a_sparse_graph_keeps_small_records_and_a_dense_one_gets_the_whole(sparse, dense, tmp_path):
    kept, whole_graph = sizes(sparse, tmp_path / "a"), sizes(dense, tmp_path / "b")
    assert {split: one["top_k"] for split, one in whole_graph["splits"].items()} == dict.fromkeys(
        ("train", "valid", "test"), ALL
    )
    assert [whole_graph["splits"][split]["records"] for split in ("train", "valid", "test")] == [
        1,
        2,
        1,
    ]
    assert all(one["enough"] for facts in (kept, whole_graph) for one in facts["splits"].values())
    assert kept["splits"]["train"]["outputs"] < 1200
    assert kept["splits"]["train"]["top_k"] in (16, 32, 64)
    assert whole_graph["mass"] == "none"  # nothing is missing that rows could be corrected for
    few = sizes(dense, tmp_path / "c", batches__top_k=4, batches__outputs=64)
    assert few["mass"] == "row"
    assert not few["splits"]["train"]["enough"]


def test_sizes_are_the_same_for_any_threads(sparse, tmp_path):
    assert sizes(sparse, tmp_path / "a", threads=1) == sizes(sparse, tmp_path / "b", threads=3)


def test_resolved_sizes_are_those_of_a_recipe_that_names_them(sparse, tmp_path):
    facts = {role: one.facts for role, one in sparse.items()}
    found = sizes(sparse, tmp_path)
    facts["sizing"] = {
        "splits": {**found["splits"], "train": {**found["splits"]["train"], "outputs": 200}}
    }
    automatic = INFLUENCE.resolve(AUTO, facts)
    top_k = found["splits"]["train"]["top_k"]
    named = INFLUENCE.resolve(
        {**VALUES, "batches.top_k": top_k, "batches.outputs": 200, "batches.mix": automatic.mix},
        facts,
    )
    assert plain(automatic) == plain(named)
    assert "whole" not in plain(named)  # keys of stores from before stay what they are
    # Values that are named win over what was measured; the test split's sizes serve other nodes.
    assert INFLUENCE.resolve({**AUTO, "batches.top_k": 5}, facts).top_k == 5
    other = {**AUTO, "split": "infer", "infer.split": "all"}
    test = found["splits"]["test"]
    assert INFLUENCE.resolve(other, facts).outputs == test["outputs"]
    assert INFLUENCE.resolve({**other, "infer.top_k": 3}, facts).top_k == 3
    assert INFLUENCE.resolve(AUTO, {k: v for k, v in facts.items() if k != "sizing"}).top_k == 16


@pytest.mark.parametrize("rounds", [1, 2])
def test_records_of_the_whole_graph(dense, tmp_path, rounds):
    values = {**VALUES, "batches.top_k": "all", "batches.outputs": 300, "batches.rounds": rounds}
    params = INFLUENCE.resolve(values, {role: one.facts for role, one in dense.items()})
    assert (params.whole, params.top_k, params.mix) == (True, 0, 0)
    made = run_stage(INFLUENCE, params, dense, tmp_path)
    assert made.facts["records"] == 3 * rounds
    assert made.facts["captured"] == 1.0
    assert np.array_equal(made.array("n_id"), np.tile(np.arange(1500), 3 * rounds))
    assert np.array_equal(made.array("n_ptr"), 1500 * np.arange(3 * rounds + 1))
    for part in np.split(made.array("outputs"), rounds):
        assert np.array_equal(np.sort(part), dense["split"].array("train"))
    assert (
        INFLUENCE.cost(params, {role: one.facts for role, one in dense.items()}).written >= 4 * 4500
    )


@pytest.mark.parametrize(("train", "rest", "mass"), [(0.8, 1.0, "row"), (0.9, 0.5, "none")])
def test_mass_follows_from_what_records_of_training_hold(train, rest, mass):
    held = {"train": train, "valid": rest, "test": rest}
    shards = {split: MemoryReader({}, {"held": [share, 1.0]}) for split, share in held.items()}
    assert STAGE.finish(None, {}, shards, None)["mass"] == mass


def test_mass_is_what_was_found():
    assert resolved_mass("auto", None) == "none"
    assert resolved_mass("auto", {"mass": "row"}) == "row"
    assert resolved_mass("none", {"mass": "row"}) == "none"


def test_batched_inference_on_records_of_the_whole_graph_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    dense = {"edge_index": rng.integers(0, 1500, (2, 45_000)), "num_nodes": np.int64(1500)}
    npz = write_npz(tmp_path / "dense.npz", nodes=1500, replace=dense)
    recipe = tmp_path / "dense.toml"
    recipe.write_text(f'[dataset]\nsource = "npz:{npz}"\n')
    sets = [
        "train.ingredients=1",
        "train.epochs=3",
        "train.hidden=8",
        "train.layers=2",
        "batches.top_k=all",
    ]
    summary = run(recipe, sets, tmp_path / "store", tmp_path / "runs")
    assert {one["top_k"] for one in summary["stages"]["sizing"]["splits"].values()} == {ALL}
    assert summary["infer"]["test_accuracy"] == summary["infer"]["full_graph_test_accuracy"]
    assert not [line for line in summary["remarks"] if "full-graph" in line]
