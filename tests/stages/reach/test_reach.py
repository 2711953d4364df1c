"""How many nodes a set of inference has where a recipe says "auto": as many as the model's hits
need, counted on the records that inference would read."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.errors import BadInput
from stockpot.locate import artifact_of
from stockpot.planning.recipe import load
from stockpot.stages.judge.paired import loss_of
from stockpot.stages.reach import STAGE
from stockpot.stages.reach.reporting import reach_table
from stockpot.stages.reach.set_size import MOST, candidates, choose
from tests.graphs import write_recipe
from tests.runs import run_here

AUTO = '[infer]\ntop_k = "auto"\n'
SEEN = {"nodes": 400, "degree": 12, "ingredients": 2, "outputs": 32}


def recipe_of(folder, text=AUTO, **more):
    """A recipe whose records hold two nodes of every output, and the graph it names."""
    recipe = write_recipe(folder, **{**SEEN, **more}, extra=text)
    recipe.write_text(recipe.read_text().replace("mix = 4", "mix = 2\ntop_k = 2"))
    return recipe


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rates=st.lists(st.floats(0.2, 0.9), min_size=1, max_size=4),
    outputs=st.integers(1, 3000),
)
def test_the_smallest_that_is_as_good_as_the_best_is_taken(seed, rates, outputs):
    luck = np.random.default_rng(seed).random(outputs)
    hits = {2 << i: luck < rate for i, rate in enumerate(rates)}
    rows = {size: 10 * size for size in hits}
    taken, table, reason = choose(hits, rows)
    accuracy = {size: float(found.mean()) for size, found in hits.items()}
    best = max(accuracy.values())
    assert [row.top_k for row in table] == sorted(hits)
    assert [row.accuracy for row in table] == pytest.approx([accuracy[s] for s in sorted(hits)])
    leading = min(size for size in hits if accuracy[size] == best)
    for row in table:
        error = loss_of([hits[leading]], [hits[row.top_k]]).error
        assert row.behind == pytest.approx(best - row.accuracy)
        near = best - row.accuracy <= (0 if row.top_k == leading else error)
        if row.top_k < taken:
            assert not near
        if row.top_k == taken:
            assert near
    assert reason


def test_sizes_double_from_the_trainings():
    assert candidates(16, 10**6) == [16, 32, 64, 128]
    assert candidates(100, 10**6) == [100, 200, MOST]
    assert candidates(1000, 10**6) == [1000]
    assert candidates(5, 5) == [5]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    run_here(recipe_of(root), root / "runs")
    return root


def test_hits_are_those_of_inference_with_that_size(run, tmp_path):
    """Every row of the table against a whole run that names the size and asks the same nodes."""
    folder = run / "runs/tiny"
    judged = artifact_of(folder, "reach").facts
    valid = np.asarray(artifact_of(folder, "split").array("valid"))
    labelled = valid[np.asarray(artifact_of(folder, "ingest").array("y"))[valid] >= 0]
    assert judged["judged_on"] == len(labelled)
    assert [row["top_k"] for row in judged["table"]] == [2, 4, 8, 16]
    assert len({row["accuracy"] for row in judged["table"]}) > 1
    np.save(tmp_path / "ids.npy", labelled)
    for row in judged["table"]:
        text = f'[infer]\ntop_k = {row["top_k"]}\nsplit = "{tmp_path / "ids.npy"}"\n'
        if row["top_k"] == 2:
            text = text.replace("top_k = 2", "top_k = 0")
        recipe = tmp_path / "tiny.toml"
        recipe.write_text((run / "tiny.toml").read_text().replace(AUTO, text))
        named = run_here(recipe, run / "runs", ["influence:infer", "infer"])
        assert row["accuracy"] == named["infer"].facts["test_accuracy"]
        assert row["rows"] == named["influence:infer"].facts["rows"]


def test_inference_reads_the_size_that_was_taken(run):
    folder = run / "runs/tiny"
    judged = artifact_of(folder, "reach").facts
    stored = artifact_of(folder, "influence:infer").manifest
    assert stored["params"]["top_k"] == judged["top_k"]
    assert stored["params"]["source"] == "test"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stages"]["reach"]["table"] == judged["table"]
    assert summary["infer"]["num_outputs"] == 100
    assert f"\n* {judged['top_k']}" in "\n" + reach_table(judged)[0]
    assert "Sets of inference" in (folder / "report.html").read_text()


def test_sets_that_are_the_whole_graph_are_not_judged(tmp_path):
    recipe = recipe_of(tmp_path)
    recipe.write_text(recipe.read_text().replace("top_k = 2", 'top_k = "all"'))
    run_here(recipe, tmp_path / "runs")
    described = json.loads((tmp_path / "runs/tiny/run.json").read_text())["artifacts"]
    assert "reach" not in described
    assert artifact_of(tmp_path / "runs/tiny", "influence:infer").manifest["params"]["whole"]


@pytest.mark.parametrize("method", ["cluster", "batch", "propagate", "labor"])
def test_records_without_sets_of_single_outputs_are_refused(tmp_path, method):
    values = load(recipe_of(tmp_path), [f"batches.method={method}"]).values()
    with pytest.raises(BadInput, match=f"found {method}; fix: --set infer.top_k=0"):
        list(STAGE.planning.nodes(values, {}))
