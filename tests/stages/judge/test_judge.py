"""The judge refuses what costs accuracy, allows what does not, and spends no more rows than it
may."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from stockpot.stages.codec.codec_names import parse
from stockpot.stages.errors import BadInput
from stockpot.stages.judge import STAGE, network
from stockpot.stages.judge.decision import Decision
from stockpot.stages.judge.ladder import ladder, sized
from stockpot.stages.judge.paired import Loss, loss_of, verdict
from stockpot.stages.judge.sample_features import Coding
from stockpot.stages.judge.sample_records import Maker
from stockpot.stages.judge.spending import (
    BRANCH_STEPS,
    BRANCHES,
    LEAST_STEP,
    MOST_ROWS,
    SHARE,
    STEM_STEPS,
    row_passes,
    sizes,
)
from stockpot.stages.judge.stage import Params
from tests.memory import MemoryReader, run_stage

COLUMNS = [1, 2, 7, 8, 31, 64, 255, 257, 1024, 1025, 1433, 8415, 100_000]


def graph(nodes=6000, columns=32, classes=8, homophily=0.7, degree=4, seed=0):
    """Features of noisy classes on a graph of homophily: one code for all columns tells the classes
    apart no more."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, nodes)
    source = rng.integers(0, nodes, nodes * degree // 2)
    target = rng.integers(0, nodes, len(source))
    inside = rng.random(len(source)) < homophily
    for c in range(classes):
        mine = np.flatnonzero(inside & (y[source] == c))
        target[mine] = rng.choice(np.flatnonzero(y == c), len(mine))
    a = sp.csr_matrix((np.ones(len(source)), (source, target)), (nodes, nodes))
    a = (a + a.T).tocsr()
    a.setdiag(0)
    a.eliminate_zeros()
    a.sort_indices()
    x = (rng.normal(size=(classes, columns))[y] * 0.5 + rng.normal(size=(nodes, columns))).astype(
        np.float32
    )
    facts = {
        "num_nodes": nodes,
        "nnz": a.nnz,
        "num_features": columns,
        "num_classes": classes,
        "features": "dense",
    }
    facts |= {"binary": False, "x_nnz": x.size, "directed": False, "weighted": False}
    arrays = {"indptr": a.indptr.astype(np.int64), "indices": a.indices.astype(np.int32)}
    return MemoryReader({**arrays, "x": x, "y": y.astype(np.int32)}, facts)


def split(nodes, seed=0):
    order = np.random.default_rng(seed).permutation(nodes).astype(np.int32)
    parts = {
        "train": np.sort(order[: nodes // 2]),
        "valid": np.sort(order[nodes // 2 : 3 * nodes // 4]),
    }
    return MemoryReader(parts, {name: len(ids) for name, ids in parts.items()})


def asked(model="gcn", max_drop=0.002, up_to=0):
    return {
        "features.codec": "auto",
        "features.lossless_up_to": up_to,
        "features.max_accuracy_drop": max_drop,
        "train.model": model,
    }


def judged(tmp_path, levels, model="gcn", max_drop=0.01, nodes=6000, rows=350_000):
    g, s = graph(nodes), split(nodes)
    params = Params(model, "fp32", levels, max_drop, rows)
    return run_stage(STAGE, params, {"graph": g, "split": s}, tmp_path).facts


def test_a_code_that_tells_classes_apart_no_more_is_refused(tmp_path):
    """Seen: 20,000 nodes, 32 columns, 8 classes: pq1 promised 0.04 points and cost 13."""
    facts = judged(tmp_path, (("pq1",),))
    (row, half) = facts["rate"]
    assert (row["codec"], row["allowed"], half["codec"]) == ("pq1", False, "fp16")
    assert row["drop"] > 0.02
    assert facts["codec"] == "fp16"
    assert facts["reason"].startswith("pq1 may cost ")


@pytest.mark.parametrize("model", ["sage", "gat"])
def test_a_code_of_little_error_is_allowed_and_a_rough_one_is_not(tmp_path, model):
    facts = judged(tmp_path, (("sq8",), ("pq1",)), model)
    assert [(row["codec"], row["allowed"]) for row in facts["rate"]] == [
        ("sq8", True),
        ("pq1", False),
    ]
    assert facts["codec"] == "sq8"
    assert 0.5 < facts["accuracy"] <= 1
    assert 0 < facts["row_passes"] <= facts["rows_allowed"] == 350_000
    assert json.loads(json.dumps(facts)) == facts


def test_of_a_level_the_code_of_least_error_is_judged_and_the_same_again(tmp_path):
    one, two = (judged(tmp_path / name, (("sq1", "sq4"),)) for name in "ab")
    assert one == two
    judged_one = [row for row in one["rate"] if row["allowed"] is not None]
    assert [row["codec"] for row in judged_one if row["codec"] != "fp16"] == ["sq4"]
    errors = {row["codec"]: row["nmse_aggregated"] for row in one["rate"]}
    assert errors["sq4"] < errors["sq1"]


def test_too_few_outputs_are_judged_by_nothing(tmp_path):
    facts = judged(tmp_path, (("sq8",),), nodes=1000, rows=row_passes(500))
    assert (facts["codec"], facts["row_passes"], facts["rate"]) == ("fp32", 0, [])
    assert facts["reason"].startswith(
        "500 training and 250 validation outputs with labels are too few to judge a code"
    )
    assert facts["reason"].endswith("by within a tenth of their training")


def test_outputs_without_labels_judge_nothing(tmp_path):
    g, s = graph(600), split(600)
    y = g.arrays["y"].copy()
    y[s.array("valid")] = -1
    g.arrays["y"] = y
    found = run_stage(
        STAGE, Params("gcn", "fp32", (("sq8",),), 0.01, 350_000), {"graph": g, "split": s}, tmp_path
    )
    assert found.facts["codec"] == "fp32"
    assert found.facts["reason"].startswith(
        "300 training and 0 validation outputs with labels are too few"
    )


def test_features_beyond_half_floats_stay_fp32(tmp_path):
    g, s = graph(), split(6000)
    x = g.arrays["x"].copy()
    x[np.setdiff1d(np.arange(6000), np.r_[s.array("train"), s.array("valid")])[0], 0] = 1e5
    g.arrays["x"] = x
    params = Params("gcn", "fp32", (("pq1",),), 0.01, 350_000)
    assert run_stage(STAGE, params, {"graph": g, "split": s}, tmp_path).facts["codec"] == "fp32"


def test_records_are_the_induced_subgraphs_of_all_outputs():
    g = graph(800)
    outputs = split(800).array("train")
    records = Maker(g).records(outputs, 64, 0)
    assert sorted(np.concatenate([r.n_id[: len(r.y)] for r in records])) == sorted(outputs)
    a = sp.csr_matrix((np.ones(g.facts["nnz"]), g.array("indices"), g.array("indptr")), (800, 800))
    for r in records:
        assert len(r.y) <= 64
        assert np.array_equal(r.y, g.array("y")[r.n_id[: len(r.y)]])
        inside = sp.csr_matrix((np.ones(len(r.indices)), r.indices, r.indptr), (len(r.n_id),) * 2)
        assert (inside != a[r.n_id][:, r.n_id]).nnz == 0
        assert np.array_equal(r.deg, np.diff(g.array("indptr"))[r.n_id])
        assert r.num_sampled_nodes.sum() == len(r.n_id)


def test_weights_and_directions_reach_the_judge(tmp_path):
    g, s = graph(), split(6000)
    g.arrays["weight"] = np.random.default_rng(1).random(g.facts["nnz"]).astype(np.float32) + 0.5
    g.facts["weighted"] = True
    r = Maker(g).records(s.array("train")[:200], 64, 0)[0]
    a = sp.csr_matrix((g.array("weight"), g.array("indices"), g.array("indptr")), (6000,) * 2)
    np.testing.assert_allclose(r.deg, np.asarray(a.sum(1)).ravel()[r.n_id], rtol=1e-6)
    np.testing.assert_array_equal(r.weight, a[r.n_id][:, r.n_id].tocsr().sorted_indices().data)
    params = Params("gcn", "fp32", (("sq1",),), 1.0, 350_000)
    assert run_stage(STAGE, params, {"graph": g, "split": s}, tmp_path).facts["codec"] == "sq1"


# --- what may be spent, and on what


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("nodes", [10, 5000, 10**8])
def test_every_count_of_columns_has_levels_that_fall_in_bytes(columns, nodes):
    plain = 4 * nodes * columns
    levels = ladder(nodes, columns, plain)
    sizes_of = [[sized(name, nodes, columns) for name in names] for names in levels]
    assert all(size < plain for level in sizes_of for size in level)
    assert all(min(a) > max(b) for a, b in pairwise(sizes_of))
    for names in levels:
        for name in names:
            assert parse(name).row_bytes(columns) > 0
    for kind, nnz in (("dense", nodes * columns), ("sparse", nodes)):
        facts = {
            **graph(100).facts,
            "num_nodes": nodes,
            "num_features": columns,
            "features": kind,
            "x_nnz": nnz,
        }
        both = {"graph": facts, "split": {"train": nodes // 2, "valid": nodes // 4}}
        if (params := STAGE.resolve(asked(), both)) is not None:
            assert STAGE.cost(params, both).peak > 0
            assert params.levels


def test_a_tenth_of_the_training_is_all_it_spends():
    assert row_passes(1000) == pytest.approx(SHARE * 160 * 4 * 1000)
    assert row_passes(10**9) == MOST_ROWS
    for train in (3000, 10**4, 10**5, 10**7):
        for per_output in (2.0, 4.0, 17.0):
            found = sizes(row_passes(train), per_output, train, train // 2, 128)
            if found is None:
                assert LEAST_STEP * per_output * (
                    STEM_STEPS + BRANCHES * BRANCH_STEPS
                ) > 0.5 * row_passes(train)
                continue
            steps = (STEM_STEPS + BRANCHES * BRANCH_STEPS) * found.step * per_output
            assert steps + BRANCHES * found.valid * per_output <= row_passes(train)
            assert found.train <= train
            assert found.valid <= train // 2


def test_nothing_is_judged_where_nothing_can_be_gained():
    g, s = graph(100).facts, {"train": 50, "valid": 25}
    facts = {"graph": {**g, "num_nodes": 10**7, "x_nnz": 32 * 10**7}, "split": s}
    assert STAGE.resolve(asked(), facts).exact == "fp32"
    assert STAGE.resolve(asked(up_to="2GB"), {**facts, "graph": g}) is None
    assert STAGE.resolve(asked(max_drop=0.0), facts) is None
    assert STAGE.resolve(asked("sage-lstm"), facts) is None
    assert STAGE.resolve(asked("my.nets:build"), facts) is None
    assert STAGE.resolve(asked(), {**facts, "graph": {**facts["graph"], "binary": True}}) is None
    sparse = {**facts["graph"], "x_nnz": 10**7}
    assert STAGE.resolve(asked(), {**facts, "graph": sparse}).exact == "lossless-values"
    with pytest.raises(
        BadInput, match=r"max_accuracy_drop: expected a share from 0 to 1, found 1\.5"
    ):
        STAGE.resolve(asked(max_drop=1.5), facts)


def test_its_key_holds_the_model_and_no_other_key_of_the_training():
    assert [name for name in STAGE.reads if name.startswith("train.")] == ["train.model"]
    assert not [name for name in STAGE.reads if name.split(".")[0] not in ("features", "train")]


def test_a_code_as_large_as_what_is_there_is_not_judged():
    first = ("sq8",), ("sq4", "pq64")
    assert ladder(10**6, 128, sized("sq8", 10**6, 128) + 1)[:2] == first
    assert ladder(10**6, 128, sized("sq8", 10**6, 128))[0] == first[1]


def test_sides_of_a_pair_read_alike_and_all_they_read_is_spent(monkeypatch):
    monkeypatch.setattr(network, "STEM_STEPS", 4)
    monkeypatch.setattr(network, "BRANCH_STEPS", 8)
    g, read = graph(800), []
    x, facts = g.array("x"), g.facts
    records = Maker(g).records(split(800).array("train"), 32, 0)[:6]
    trials = [network.Trial(r, r.n_id.astype(np.int64)) for r in records]
    config = network.network_config("gcn", facts["num_features"], facts["num_classes"])
    trainee = network.Trainee(config, trials[:4], trials[4:], 0)

    def side(pair):
        read.clear()
        trainee.branch(lambda places: read.append(places.tolist()) or x[places], pair)
        return list(read)

    rows = [len(t.places) for t in trials]
    trainee.stem(lambda places: x[places])
    assert trainee.spent == sum(rows[:4])
    first = side(0)
    assert trainee.spent == 3 * sum(rows[:4]) + sum(rows[4:])
    assert side(0) == first
    assert side(1) != first


def test_of_a_level_the_code_of_least_error_after_aggregation_is_judged():
    """Not the one of least error of single rows: an output reads means."""

    def coding(name, nmse, aggregated):
        return Coding(name, 8, 0, lambda places: places, nmse, aggregated)

    codings = {"sq2": coding("sq2", 0.1, 0.05), "pq8": coding("pq8", 0.2, 0.01)}
    sample = SimpleNamespace(
        x=np.zeros((4, 16)), exact=None, coded=lambda name, _seed: codings[name]
    )
    right = np.ones(20_000, bool)
    trainee = SimpleNamespace(branch_rows=1, spent=0, branch=lambda _rows, _pair: right)
    decision = Decision(trainee, sample, 1000, 0.01, 10**6, 0)
    assert decision.taken([("sq2", "pq8")], lambda _name: None) == "pq8"
    assert [(row.codec, row.allowed) for row in decision.table] == [("sq2", None), ("pq8", True)]


# --- the test of pairs


def hits(rng, n, pairs, lost):
    exact = [rng.random(n) < 0.8 for _ in range(pairs)]
    return exact, [e & (rng.random(n) >= lost) for e in exact]


def test_the_loss_is_the_mean_over_outputs_and_pairs_and_its_error_covers_it():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        found = loss_of(*hits(rng, 2000, 3, 0.02))
        inside += found.least <= 0.8 * 0.02 <= found.bound
    assert inside > 0.93 * 300


def test_pairs_that_lose_unequally_widen_the_error():
    """Of so many outputs the mean is sure; what three trainings lose is not."""
    n, lost = 100_000, np.array([0, 2000, 7000])
    exact = [np.ones(n, bool)] * 3
    unequal = loss_of(exact, [np.arange(n) >= count for count in lost])
    equal = loss_of(exact, [np.arange(n) >= lost.mean()] * 3)
    assert unequal.mean == pytest.approx(equal.mean)
    assert equal.error < 1e-3
    assert unequal.error == pytest.approx((lost / n).std(ddof=1) / 3**0.5, rel=0.01)


@pytest.mark.parametrize("n", [1, 10, 100, 900])
def test_few_outputs_that_agree_prove_nothing(n):
    same = [np.ones(n, bool)] * 4
    assert verdict(loss_of(same, same), 0.002) is False
    assert loss_of(same, same).bound > 0.002


def test_many_outputs_that_agree_prove_it_from_the_second_pair_on():
    same = [np.ones(20_000, bool)] * 4
    assert [verdict(loss_of(same[:k], same[:k]), 0.002) for k in (1, 2)] == [None, True]


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (Loss(0.05, 0.01, 1), False),
        (Loss(0.003, 0.001, 1), None),
        (Loss(0.003, 0.001, 2), False),
        (Loss(0.001, 0.001, 2), None),
        (Loss(0.001, 0.001, 4), False),
        (Loss(0.001, 0.0004, 2), True),
        (Loss(-0.01, 0.001, 1), None),
    ],
)
def test_the_verdict_waits_until_it_is_clear(loss, found):
    assert verdict(loss, 0.002) is found
