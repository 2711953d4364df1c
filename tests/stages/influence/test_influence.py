import itertools
from dataclasses import replace

import numpy as np
import pytest

from stockpot.stages.errors import BadInput
from stockpot.stages.influence import STAGE, spans
from stockpot.stages.influence import stage as module
from stockpot.stages.influence.batch_params import PARTED
from stockpot.stages.influence.nodes import read_nodes
from tests.memory import MemoryReader, run_stage
from tests.stages.graphs import communities, csr, dense_ppr, reader

VALUES = {
    "batches.method": "node",
    "batches.alpha": 0.25,
    "batches.eps": 1e-3,
    "batches.top_k": 6,
    "batches.outputs": 60,
    "batches.mix": 4,
    "batches.rounds": 1,
    "batches.aux_ratio": 1.0,
    "batches.aux_mass": 0.0,
    "batches.orientation": "transpose",
    "graph.self_loops": True,
    "infer.split": "test",
    "infer.top_k": 0,
    "split": "train",
}
NAMES = ("outputs", "out_ptr", "input_id", "n_id", "n_ptr")


def make_inputs(num_nodes=900, seed=0):
    edges, group = communities(num_nodes, 12, seed=seed)
    graph = reader(*csr(num_nodes, edges)[:2], y=group, num_classes=12)
    order = np.random.default_rng(seed).permutation(num_nodes)
    ids = np.split(order, [num_nodes // 2, num_nodes * 3 // 4])
    splits = {
        name: np.sort(part).astype(np.int32)
        for name, part in zip(("train", "valid", "test"), ids, strict=True)
    }
    split = MemoryReader(splits, {name: len(part) for name, part in splits.items()})
    parts = 30
    part = MemoryReader(
        {"part": (group * parts // 12).astype(np.int32)}, {"parts": parts, "num_nodes": num_nodes}
    )
    return {"graph": graph, "split": split, "partition": part}


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def facts_of(inputs):
    return {role: one.facts for role, one in inputs.items()}


def build(inputs, tmp_path, *, threads=1, **values):
    values = {**VALUES, **{name.replace("__", "."): value for name, value in values.items()}}
    params = STAGE.resolve(values, facts_of(inputs))
    used = {
        role: one for role, one in inputs.items() if role != "partition" or params.method in PARTED
    }
    return params, run_stage(STAGE, params, used, tmp_path, threads=threads)


def check(out, ids, cap):
    """What every artifact of influence promises, whatever the method."""
    outputs, out_ptr, input_id, n_id, n_ptr = (out.array(name) for name in NAMES)
    assert [a.dtype.str[1:] for a in (outputs, out_ptr, input_id, n_id, n_ptr)] == [
        "i4",
        "i8",
        "i8",
        "i4",
        "i8",
    ]
    rounds = out.facts.get("rounds", 1)
    for part in np.split(outputs, out_ptr[:: out.facts["records"] // rounds][1:-1]):
        assert sorted(part.tolist()) == ids.tolist()
    np.testing.assert_array_equal(ids[input_id], outputs)
    assert out_ptr[0] == n_ptr[0] == 0
    assert out_ptr[-1] == len(outputs)
    assert n_ptr[-1] == len(n_id)
    sizes = np.diff(out_ptr)
    assert sizes.min() >= 1
    assert sizes.max() <= cap
    for r in range(len(sizes)):
        nodes = n_id[n_ptr[r] : n_ptr[r + 1]]
        assert (np.diff(nodes) > 0).all()
        assert np.isin(outputs[out_ptr[r] : out_ptr[r + 1]], nodes).all()
    assert out.facts["records"] == len(sizes)
    assert out.facts["records"] % rounds == 0
    assert out.facts["outputs"] == len(ids) == len(outputs) / rounds
    assert out.facts["rows"] == len(n_id)
    assert out.facts["replication"] == pytest.approx(len(n_id) / len(outputs), abs=1e-6)


@pytest.mark.parametrize("method", ["node", "batch", "cluster", "random", "propagate"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_method_fills_the_same_format(inputs, tmp_path, method, split):
    params, out = build(inputs, tmp_path, batches__method=method, split=split)
    check(out, inputs["split"].array(split), params.outputs)
    assert out.facts["split"] == split
    assert out.facts["method"] == method
    assert (out.facts["captured"] is None) == (method in ("cluster", "propagate"))


def test_records_of_rows_are_their_outputs_dealt_anew_in_each_round(inputs, tmp_path):
    """No PPR is computed, and nothing but outputs is in a record."""
    params, out = build(
        {role: inputs[role] for role in ("graph", "split")},
        tmp_path / "one",
        batches__method="propagate",
        batches__rounds=3,
    )
    check(out, inputs["split"].array("train"), 60)
    assert (params.top_k, params.mix, params.alpha, params.eps) == (0, 0, 0.0, 0.0)
    assert out.facts["edgeless"]
    assert out.facts["replication"] == 1.0
    np.testing.assert_array_equal(out.array("n_id"), out.array("outputs"))
    np.testing.assert_array_equal(out.array("n_ptr"), out.array("out_ptr"))
    rounds = np.split(out.array("outputs"), 3)
    assert not np.array_equal(rounds[0], rounds[1])
    # Dealt evenly: a record of a seventh of 450 outputs has some from each quarter of the ids.
    first = out.array("outputs")[: int(out.array("out_ptr")[1])]
    assert np.histogram(first, 4, (0, 900))[0].min() >= 5
    again = build(inputs, tmp_path / "two", batches__method="propagate", batches__rounds=3,
                  batches__alpha=0.5, batches__top_k=9, threads=3)  # fmt: skip
    assert again[0] == params
    for name in NAMES:
        np.testing.assert_array_equal(again[1].array(name), out.array(name))


def test_records_are_the_union_of_the_largest_entries(inputs, tmp_path):
    from tests.stages.influence.test_ppr import top

    params, out = build(inputs, tmp_path)
    graph = inputs["graph"]
    outputs, out_ptr, n_id, n_ptr = (
        out.array(name) for name in ("outputs", "out_ptr", "n_id", "n_ptr")
    )
    arrays = graph.array("indptr"), graph.array("indices"), None, True
    nodes, _, _, _ = top(arrays, outputs, k=params.top_k, eps=params.eps)
    for r in range(out.facts["records"]):
        span = slice(out_ptr[r], out_ptr[r + 1])
        expected = set(nodes[span].ravel().tolist()) - {-1} | set(outputs[span].tolist())
        assert set(n_id[n_ptr[r] : n_ptr[r + 1]].tolist()) == expected


def test_influence_shares_more_than_chance_and_mixing_costs_rows(inputs, tmp_path):
    rows = {}
    for name, values in {
        "one": {"batches__mix": 1},
        "mixed": {"batches__mix": 6},
        "random": {"batches__method": "random"},
    }.items():
        _, out = build(inputs, tmp_path / name, **values)
        rows[name] = out.facts["rows"]
        assert 0.3 < out.facts["captured"] <= 1.0
    assert rows["one"] < rows["mixed"] < rows["random"]


@pytest.mark.parametrize("method", ["node", "random", "batch"])
def test_threads_and_shards_do_not_change_a_byte(inputs, tmp_path, monkeypatch, method):
    _, expected = build(inputs, tmp_path / "a", batches__method=method, batches__rounds=2)
    for i, (span, chunk, threads) in enumerate([(64, 16, 2), (1000, 7, 2), (449, 512, 1)]):
        monkeypatch.setattr(module, "SPAN", span)
        monkeypatch.setattr(spans, "_CHUNK", chunk)
        params, out = build(
            inputs, tmp_path / str(i), threads=threads, batches__method=method, batches__rounds=2
        )
        assert (len(STAGE.shards(params, inputs)) > 1) == (span < 450)
        assert out.facts == expected.facts
        for name in NAMES:
            assert out.array(name).tobytes() == expected.array(name).tobytes()


def test_cluster_records_hold_whole_parts(inputs, tmp_path):
    _, out = build(inputs, tmp_path, batches__method="cluster", batches__outputs=100)
    part = inputs["partition"].array("part")
    n_id, n_ptr = out.array("n_id"), out.array("n_ptr")
    outputs, out_ptr = out.array("outputs"), out.array("out_ptr")
    for r in range(out.facts["records"]):
        used = np.unique(part[outputs[out_ptr[r] : out_ptr[r + 1]]])
        np.testing.assert_array_equal(
            n_id[n_ptr[r] : n_ptr[r + 1]], np.flatnonzero(np.isin(part, used))
        )


def sets_of(inputs, orientation, eps, keep):
    """Nodes of each part with train outputs, from dense float64 rows: `keep` picks from (influence,
    outputs)."""
    graph, ids = inputs["graph"], inputs["split"].array("train")
    part = inputs["partition"].array("part")
    exact, _ = dense_ppr(graph.array("indptr"), graph.array("indices"), None, 0.25, self_loops=True)
    found = {}
    for p in np.unique(part[ids]):
        outputs = ids[part[ids] == p]
        influence = (
            exact[outputs].sum(0) if orientation == "transpose" else exact[:, outputs].sum(1)
        )
        found[p] = set(keep(influence, outputs)) | set(outputs.tolist())
    return found


@pytest.mark.parametrize("orientation", ["transpose", "reference"])
def test_batch_records_hold_the_most_influential_nodes_of_their_parts(
    inputs, tmp_path, orientation
):
    most = 30  # ceil(900 nodes / 30 parts)
    values = {"batches__method": "batch", "batches__orientation": orientation, "batches__eps": 1e-8}
    for mix in (1, 3):
        params, out = build(
            inputs, tmp_path / str(mix), **values, batches__mix=mix, batches__outputs=200
        )
        sets = sets_of(
            inputs,
            orientation,
            1e-8,
            lambda x, outputs: np.argsort(-x, kind="stable")[:most].tolist(),
        )
        part = inputs["partition"].array("part")
        outputs, out_ptr, n_id, n_ptr = (
            out.array(name) for name in ("outputs", "out_ptr", "n_id", "n_ptr")
        )
        assert out.facts["records"] == -(-len(sets) // mix)
        differing = 0
        for r in range(out.facts["records"]):
            used = np.unique(part[outputs[out_ptr[r] : out_ptr[r + 1]]])
            assert len(used) <= params.mix
            expected = set().union(*(sets[p] for p in used))
            differing += len(expected ^ set(n_id[n_ptr[r] : n_ptr[r + 1]].tolist()))
        assert differing <= 0.01 * len(n_id)  # values nearer than eps may change places


def test_aux_ratio_and_mass_say_how_many_nodes(inputs, tmp_path):
    def rows(name, **values):
        return build(inputs, tmp_path / name, batches__method="batch", batches__mix=1, **values)[
            1
        ].facts

    few, many = rows("few", batches__aux_ratio=0.5), rows("many", batches__aux_ratio=3.0)
    assert few["rows"] < rows("one")["rows"] < many["rows"]
    assert few["captured"] < many["captured"]
    low, high, all_ = (rows(str(m), batches__aux_mass=m) for m in (0.6, 0.9, 1.0))
    assert low["rows"] < high["rows"] < all_["rows"]
    assert low["captured"] > 0.55
    assert high["captured"] > 0.85
    assert all_["captured"] > 0.99


def test_parts_without_outputs_are_dropped_and_large_ones_cut(inputs, tmp_path):
    ids = inputs["split"].array("train")
    part = np.full(900, 7, np.int32)
    part[ids[:100]] = 3
    given = {**inputs, "partition": MemoryReader({"part": part}, {"parts": 9})}
    params, out = build(given, tmp_path, batches__method="batch", batches__mix="auto")
    check(out, ids, params.outputs)
    assert out.facts["records"] == -(-len(ids) // 60)


def test_listing_outputs_in_another_order_changes_nothing(inputs, tmp_path):
    found = []
    for name, ids in (
        ("rising", np.arange(0, 900, 3)),
        ("mixed", np.random.default_rng(0).permutation(300) * 3),
    ):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "source.npy", ids)
        (folder / "source.npy").rename(folder / "source")
        listed = {**inputs, "nodes": MemoryReader({}, {"bytes": 1}, folder)}
        _, out = build(
            listed, folder / "out", split="infer", infer__split="ids.npy", batches__method="batch"
        )
        found.append([out.array(n).tobytes() for n in NAMES])
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["node", "batch", "cluster", "random"])
def test_rounds_hold_every_output_once_and_group_it_anew(inputs, tmp_path, method):
    values = {"batches__method": method, "batches__outputs": 75 if method in PARTED else 60}
    _, one = build(inputs, tmp_path / "one", **values)
    params, out = build(inputs, tmp_path / "three", batches__rounds=3, **values)
    ids = inputs["split"].array("train")
    check(out, ids, params.outputs)
    assert out.facts["rounds"] == 3
    assert "rounds" not in one.facts
    records = out.facts["records"] // 3
    assert records == one.facts["records"]
    for name in NAMES:  # the first round is what one round alone is
        first = one.array(name)
        np.testing.assert_array_equal(out.array(name)[: len(first)], first)
    out_ptr, input_id = out.array("out_ptr"), out.array("input_id")
    part = inputs["partition"].array("part")[ids]
    apart = (part[:, None] != part)[np.triu_indices(len(ids), 1)] if method in PARTED else np.True_
    together = []
    for r in range(3):
        record = np.empty(len(ids), int)
        for k in range(records):
            record[input_id[out_ptr[r * records + k] : out_ptr[r * records + k + 1]]] = k
        together.append((record[:, None] == record)[np.triu_indices(len(ids), 1)] & apart)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        kept = (together[a] & together[b]).sum() / together[a].sum()
        assert kept < 0.5
    valid, _ = build(inputs, tmp_path / "valid", batches__rounds=3, split="valid", **values)
    assert valid.rounds == 1


def test_merging_is_anew_in_every_round_without_mixing(inputs, tmp_path):
    _, out = build(inputs, tmp_path, batches__rounds=2, batches__mix=1)
    out_ptr, input_id = out.array("out_ptr"), out.array("input_id")
    sets = [frozenset(input_id[a:b].tolist()) for a, b in itertools.pairwise(out_ptr.tolist())]
    records = out.facts["records"] // 2
    assert len(set(sets[:records]) & set(sets[records:])) < records / 2


def test_inference_on_all_nodes_and_on_a_list(inputs, tmp_path):
    params, out = build(inputs, tmp_path / "all", split="infer", infer__split="all", infer__top_k=3)
    assert (params.source, params.top_k) == ("all", 3)
    check(out, np.arange(900), params.outputs)
    np.save(tmp_path / "source.npy", np.array([899, 3, 5, 3]))
    for name, text in [("npy", None), ("txt", "5, 3\n899 3\n")]:
        folder = tmp_path / name
        folder.mkdir()
        source = folder / "source"
        source.write_bytes(
            (tmp_path / "source.npy").read_bytes() if text is None else text.encode()
        )
        listed = {**inputs, "nodes": MemoryReader({}, {"bytes": 1}, folder)}
        params, out = build(listed, folder / "out", split="infer", infer__split="ids.npy")
        assert params.source == "nodes"
        check(out, np.array([3, 5, 899]), params.outputs)


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        (np.zeros(0, np.int64), "found none"),
        (np.array([2, -1]), "entry 1: .* found -1"),
        (np.array([2, 900]), "entry 1: .* from 0 to 899, found 900"),
        (np.array([1.5]), "found float64"),
        (np.array([[1]]), r"shape \(1, 1\)"),
        (b"", "found none"),
        (b"7 x", "entry 1: expected a node id, found 'x'"),
        (b"1.5", "found '1.5'"),
        (b"99999999999999999999", "found 99999999999999999999"),
        (b"\xff\xfe", "found neither"),
        (b"\x93NUMPY", "cannot read it"),
    ],
)
def test_a_bad_list_of_nodes_is_named(tmp_path, nodes, found):
    source = tmp_path / "source"
    if isinstance(nodes, bytes):
        source.write_bytes(nodes)
    else:
        with open(source, "wb") as file:
            np.save(file, nodes)
    with pytest.raises(BadInput, match=rf"infer\.split: .*source: .*{found}") as error:
        read_nodes(source, 900)
    assert "\n" not in str(error.value)


def test_a_graph_of_one_node_and_one_without_edges(tmp_path):
    for n in (1, 7):
        one = {
            "graph": reader(np.zeros(n + 1, np.int64), np.zeros(0, np.int32)),
            "split": MemoryReader({"train": np.array([0], np.int32)}, {"train": 1}),
            "partition": MemoryReader({"part": np.zeros(n, np.int32)}, {"parts": 1}),
        }
        for method in ("node", "random", "cluster", "batch"):
            params, out = build(
                one, tmp_path / method / str(n), batches__method=method, batches__rounds=2
            )
            check(out, np.array([0]), params.outputs)


def test_directed_weighted_graph(tmp_path):
    edges, _ = communities(200, 4)
    weights = np.random.default_rng(1).random(len(edges)) + 0.5
    graph = reader(*csr(200, edges, weights, undirected=False), directed=True)
    ids = np.arange(0, 200, 2, dtype=np.int32)
    given = {"graph": graph, "split": MemoryReader({"train": ids}, {"train": 100})}
    params, out = build(given, tmp_path / "node")
    check(out, ids, params.outputs)
    given["partition"] = MemoryReader({"part": np.arange(200, dtype=np.int32) // 20}, {"parts": 10})
    for orientation in ("transpose", "reference"):
        values = {
            "batches__method": "batch",
            "batches__orientation": orientation,
            "batches__aux_mass": 0.9,
        }
        params, out = build(given, tmp_path / orientation, **values)
        check(out, ids, params.outputs)


def test_auto_is_resolved_from_the_number_of_outputs():
    def auto(count, split="train"):
        facts = {
            "graph": {"num_nodes": 10**7},
            "split": {"train": count, "valid": count, "test": count},
        }
        values = {**VALUES, "batches.outputs": "auto", "batches.mix": "auto", "split": split}
        params = STAGE.resolve(values, facts)
        return params.outputs, params.mix

    assert auto(58_829) == (920, 16)
    assert auto(10**6) == (1024, 16)
    assert auto(58_829, "valid") == (1840, 16)
    assert auto(100) == (256, 6)
    assert auto(1) == (256, 1)


def test_records_of_test_nodes_and_of_inference_are_not_mixed(inputs, tmp_path):
    """Nothing is learned from them: one cluster each shares the most rows."""
    facts = facts_of(inputs)
    mixes = {
        split: STAGE.resolve({**VALUES, "batches.mix": 6, "split": split}, facts).mix
        for split in ("train", "valid", "test", "infer")
    }
    assert mixes == {"train": 6, "valid": 6, "test": 1, "infer": 1}
    for method in ("cluster", "random"):
        values = {**VALUES, "batches.method": method, "split": "test"}
        assert STAGE.resolve(values, facts).mix == 0
    batch = {**VALUES, "batches.method": "batch", "batches.mix": 6, "split": "test"}
    assert STAGE.resolve(batch, facts).mix == 6  # parts in a record, which are no mixture


def test_keys_of_training_do_not_depend_on_inference(inputs):
    facts = facts_of(inputs)
    for split in ("train", "valid", "test"):
        plain = STAGE.resolve({**VALUES, "split": split}, facts)
        assert plain == STAGE.resolve(
            {**VALUES, "split": split, "infer.top_k": 3, "infer.split": "all"}, facts
        )
    for method in ("node", "cluster", "random"):
        params = {**VALUES, "batches.method": method}
        assert STAGE.resolve(params, facts) == STAGE.resolve(
            {**params, "batches.aux_ratio": 2.0}, facts
        )
    batch = {**VALUES, "batches.method": "batch", "batches.aux_mass": 0.5}
    assert STAGE.resolve(batch, facts) == STAGE.resolve(
        {**batch, "batches.aux_ratio": 2.0, "batches.top_k": 9}, facts
    )
    cluster = {**VALUES, "batches.method": "cluster"}
    assert STAGE.resolve(cluster, facts) == STAGE.resolve(
        {**cluster, "batches.alpha": 0.5, "batches.top_k": 9}, facts
    )


@pytest.mark.parametrize(
    "values", [{}, {"batches__method": "batch"}, {"batches__method": "cluster"}]
)
def test_cost_bounds_what_is_written(inputs, tmp_path, values):
    params, out = build(inputs, tmp_path, **values, batches__rounds=2)
    cost = STAGE.cost(params, facts_of(inputs))
    written = sum(out.array(name).nbytes for name in NAMES)
    assert 0.5 * written < cost.written < 20 * written
    assert cost.peak > cost.read > 0
    assert cost.written == 2 * STAGE.cost(replace(params, rounds=1), facts_of(inputs)).written
