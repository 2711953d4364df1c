"""How often features are multiplied where a recipe says "auto": as often as short trainings show to
gain accuracy."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.hops import STAGE, hop_spending
from stockpot.stages.hops.choice import choose
from stockpot.stages.hops.hop_spending import LEAST_ROWS, MOST_COLUMNS, MOST_HOPS, SEEDS, sizes
from stockpot.stages.hops.reporting import REPORTING, hops_table
from stockpot.stages.hops.sample_products import SampleProducts
from stockpot.stages.hops.stage import Params
from stockpot.stages.judge import network
from stockpot.stages.judge.sample_records import Maker
from stockpot.stages.judge.spending import BRANCH_STEPS, STEM_STEPS
from stockpot.stages.propagate import STAGE as PROPAGATE
from stockpot.stages.propagate.stage import Params as Multiplied
from tests.memory import run_stage
from tests.stages.judge.test_judge import graph, split

RECIPE = {"train.model": "sage", "graph.normalization": "sym", "graph.self_loops": True}
RECIPE |= {"features.propagate_by": "auto"}
SPLIT = {"train": 3000, "valid": 1500}


def resolved(**facts):
    given = {"features": "dense", "num_features": 32, "num_nodes": 6000, **facts}
    recipe = RECIPE | {"train.model": given.pop("model", "sage")}
    return STAGE.resolve(recipe, {"graph": given, "split": SPLIT})


@pytest.fixture
def short(monkeypatch):
    """Trainings of a third of the steps."""
    for module in (network, hop_spending):
        monkeypatch.setattr(module, "STEM_STEPS", 80)
        monkeypatch.setattr(module, "BRANCH_STEPS", 20)


def judged(tmp_path, model="sage", rows=300_000, threads=1, **made):
    g = graph(**made)
    params = Params(model, MOST_HOPS, "mean", "none", self_loops=False, columns=16, rows=rows)
    inputs = {"graph": g, "split": split(g.facts["num_nodes"])}
    return run_stage(STAGE, params, inputs, tmp_path, threads=threads).facts


def test_hops_are_taken_where_neighbours_tell_the_class(tmp_path, short):
    """Many neighbours that tell a little each: records hold 16 of them, the stored means all."""
    facts = judged(tmp_path, homophily=0.3, degree=30, nodes=2000, columns=6)
    none, *others = facts["table"]
    assert none["hops"] == 0
    assert none["gain"] == 0
    assert facts["hops"] in (1, 2)
    taken = facts["table"][facts["hops"]]
    assert taken["shown"]
    assert taken["accuracy"] > none["accuracy"]
    assert [row["hops"] for row in others] == [1, 2]
    # The first layer is stored: the outermost hop of a record is not trained on.
    assert others[0]["row_passes"] == others[1]["row_passes"] <= none["row_passes"]
    assert 0 < facts["row_passes"] <= 1.05 * facts["rows_allowed"]


def test_no_hop_is_taken_where_edges_tell_nothing(tmp_path, short):
    facts = judged(tmp_path, homophily=0.0, nodes=2000, columns=16)
    assert facts["hops"] == 0
    assert facts["reason"] == "no number of hops is shown to gain accuracy"
    assert "\n* 0 " in "\n" + hops_table(facts)[0]


def test_too_few_outputs_are_not_judged_by(tmp_path):
    facts = judged(tmp_path, rows=20_000, nodes=1000)
    assert facts["hops"] == 0
    assert "too few to judge by" in facts["reason"]
    assert hops_table(facts) == []


def test_the_sample_holds_the_products_that_propagate_stores(tmp_path):
    g = graph(nodes=500, columns=20)
    params = Multiplied(3, "mean", "none", self_loops=False, columns=16)
    stored = run_stage(PROPAGATE, params, {"graph": g}, tmp_path)
    records = Maker(g).records(np.arange(0, 500, 9, dtype=np.int32), 16, 0)
    sample = SampleProducts(g, params, 16, records, threads=2)
    for hops in (0, 1, 3):
        for record in records:
            rows = sample.of(hops)(sample.places(record))
            assert rows.shape == (len(record.n_id), 20 * (hops + 1))
            np.testing.assert_array_equal(rows[:, :20], g.array("x")[record.n_id])
            for hop in range(1, hops + 1):
                wide = np.hstack([stored.array(f"hop{hop}-{c:05d}") for c in (0, 16)])
                mine = rows[:, 20 * hop : 20 * (hop + 1)]
                np.testing.assert_array_equal(mine, wide[record.n_id])


def hits(rng, n, rates):
    """Hits of `SEEDS` trainings a number of hops, right with the same luck: paired."""
    luck = rng.random((SEEDS, n))
    return {hops: [row < rate for row in luck] for hops, rate in enumerate(rates)}


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    base=st.floats(0.3, 0.8),
    one=st.floats(-0.1, 0.1),
    two=st.floats(-0.1, 0.1),
)
def test_what_is_taken_gains_and_the_fewest_of_equals(seed, base, one, two):
    rates = (base, base + one, base + two)
    found = hits(np.random.default_rng(seed), 4000, rates)
    taken, table, _ = choose(found, {0: 3, 1: 2, 2: 1})
    mean = [float(np.mean(found[hops])) for hops in range(3)]
    assert [row.accuracy for row in table] == pytest.approx(mean)
    assert [row.gain for row in table] == pytest.approx([m - mean[0] for m in mean])
    if taken:
        assert table[taken].shown
        best = max((row for row in table if row.shown), key=lambda row: row.gain)
        assert table[taken].gain >= best.gain - 0.02
    else:
        assert not any(row.shown for row in table[1:])
    if taken == 2 and table[1].shown:
        assert mean[2] > mean[1]


def test_equal_gains_take_the_fewest_hops_and_clear_ones_the_most():
    rng = np.random.default_rng(0)
    assert choose(hits(rng, 4000, (0.7, 0.75, 0.75)), dict.fromkeys(range(3), 1))[0] == 1
    assert choose(hits(rng, 4000, (0.7, 0.75, 0.80)), dict.fromkeys(range(3), 1))[0] == 2
    assert choose(hits(rng, 4000, (0.7, 0.60, 0.75)), dict.fromkeys(range(3), 1))[0] == 2
    assert choose(hits(rng, 4000, (0.7, 0.70, 0.65)), dict.fromkeys(range(3), 1))[0] == 0


@pytest.mark.parametrize(
    "given",
    [
        {"features": "none", "num_features": None},
        {"num_features": MOST_COLUMNS + 1},
        {"model": "sage-lstm"},
        {"model": "mine:Model"},
    ],
)
def test_nothing_is_judged_where_nothing_may_be_multiplied(given):
    assert resolved(**given) is None
    assert resolved() is not None


@pytest.mark.parametrize("model", ["gcn", "sage", "gat", "gin"])
def test_the_judge_multiplies_as_propagate_would(model):
    params = resolved(model=model)
    facts = {"graph": {"features": "dense", "num_features": 32, "num_nodes": 6000}}
    asked = RECIPE | {"train.model": model, "features.propagate": 2}
    other = PROPAGATE.resolve(asked, facts)
    for name in ("adj", "normalization", "self_loops", "columns"):
        assert getattr(params, name) == getattr(other, name)


def test_propagate_does_what_the_judge_says():
    facts = {"graph": {"features": "dense", "num_features": 32, "num_nodes": 6000}}
    auto = RECIPE | {"features.propagate": "auto"}
    assert PROPAGATE.resolve(auto, facts) is None
    assert PROPAGATE.resolve(auto, facts | {"hops": {"hops": 0}}) is None
    asked = PROPAGATE.resolve(RECIPE | {"features.propagate": 2}, facts)
    assert PROPAGATE.resolve(auto, facts | {"hops": {"hops": 2}}) == asked
    empty = {"graph": {"features": "none", "num_features": 0, "num_nodes": 6000}}
    assert PROPAGATE.resolve(auto, empty) is None


@settings(max_examples=60)
@given(
    rows=st.integers(1, 10**7),
    per_output=st.floats(1, 60),
    train=st.integers(0, 10**6),
    valid=st.integers(0, 10**6),
    columns=st.integers(1, 3 * MOST_COLUMNS),
)
def test_trainings_fit_the_rows_allowed(rows, per_output, train, valid, columns):
    size = sizes(rows, per_output, train, valid, columns)
    if size is None:
        return
    trainings = SEEDS * (MOST_HOPS + 1)
    steps = trainings * (STEM_STEPS + BRANCH_STEPS) * size.step * per_output
    assert steps + trainings * size.valid * per_output <= rows * 1.001
    assert size.step <= size.train <= train
    assert 0 < size.valid <= valid


def test_the_least_that_may_be_spent_judges_by_few_labels():
    assert sizes(LEAST_ROWS, 13.0, 1177, 29_000, 384) is not None


def remarks(columns, model="gcn", asked="auto"):
    view = SimpleNamespace(
        values={"features.propagate": asked, "train.model": model},
        facts=lambda name: {"num_features": columns} if name == "ingest" else {},
    )
    return list(REPORTING.remarks(view))


def test_it_reports_what_it_left_undone():
    (line,) = remarks(4096)
    assert line.startswith("features.propagate auto: features of 4,096 columns are not multiplied")
    (line,) = remarks(128, "sage-lstm")
    assert line.endswith("fix: --set features.propagate=2, or 0")
    assert remarks(128) == remarks(None) == remarks(4096, asked=0) == []
