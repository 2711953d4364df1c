"""Runs of models of rows, from the source to predictions: codes, soups, ranks, cached rows."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from stockpot import open_batches, open_model, open_records
from stockpot.stages.codec.node_rows import NodeRows
from tests.graphs import write_recipe
from tests.runs import run_here

LOSSY = 'codec = "pq8"\ntier_share = 0.1\ntier_bytes = 4\n'
CASES = {
    "sign fp32": ("sign", "", "", "auto"),
    "sign lossy": ("sign", LOSSY, "rounds = 3\n", "uniform"),
    "sgc lossy": ("sgc", 'codec = "pq8"\n', "", "best"),
}


def recipe_of(folder, case, *, name="tiny", train="", extra="", features="", **options):
    model, codec, batches, soup = CASES[case]
    recipe = write_recipe(
        folder,
        name,
        nodes=400,
        model=model,
        extra=f'\n[features]\npropagate = 2\n{codec}{features}[soup]\nmethod = "{soup}"\n{extra}',
        **options,
    )
    text = recipe.read_text().replace("[train]", f"[train]\n{train}")
    rows = f'[batches]\nmethod = "propagate"\n{batches}'
    recipe.write_text(text.replace("[batches]", rows))
    return recipe


def summary_of(folder, name="tiny"):
    return json.loads((folder / f"{name}/summary.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_souped_and_asked_like_any_other(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    store = run_here(recipe_of(tmp_path, case, outputs=20), tmp_path / "runs")
    summary = summary_of(tmp_path / "runs")
    assert "partition" not in summary["artifacts"]
    for one in summary["stages"]["pack"]["splits"].values():
        assert (one["edges"], one["replication"], one["dropped_nodes"]) == (0, 1.0, 0)
    methods = {"auto": {"best", "uniform", "greedy", "gis", "learned", "signed"}}
    soup = CASES[case][3]
    assert set(summary["soup"]["methods"]) == methods.get(soup, {"best", soup})
    # Of equal rows, records and the whole graph agree.
    assert summary["infer"]["full_graph_test_accuracy"] == summary["infer"]["test_accuracy"]
    model = open_model("runs/tiny")
    whole = NodeRows(store.open("quantize", summary["artifacts"]["quantize"]["key"])).all()
    predicted = store.open("infer", summary["artifacts"]["infer"]["key"]).path("predictions.arrow")
    table = pa.ipc.open_file(predicted).read_all()
    ids = np.array(table["n_id"].to_pylist())
    assert len(ids) == 100
    with torch.no_grad():
        expected = torch.softmax(model(torch.from_numpy(whole)), 1).numpy()[ids]
    found = np.array(table["probabilities"].to_pylist())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    seen = {}
    with torch.no_grad():
        for batch in open_batches("runs/tiny", "test"):
            assert "adj_t" not in batch
            probabilities = torch.softmax(model(batch.x), 1).numpy()
            seen |= dict(zip(batch.n_id.tolist(), probabilities, strict=True))
    np.testing.assert_allclose(np.array([seen[i] for i in ids]), expected, atol=1e-5)
    text = (tmp_path / "runs/tiny/report.html").read_text()
    assert "Features were multiplied 2 times" in text
    assert len(open_records("runs/tiny")) == 10 * (3 if case == "sign lossy" else 1)


def test_several_ranks_predict_what_one_process_would(tmp_path):
    """Cooperating or not: nothing crosses, and sums over ranks are those of one process."""
    found = {}
    for name, train in {
        "alone": "",
        "independent": 'ranks = 2\nexchange = "independent"\n',
        "cooperative": 'ranks = 2\nexchange = "cooperative"\n',
    }.items():
        recipe = recipe_of(
            tmp_path, "sgc lossy", name=name, train=train, ingredients=1, epochs=2, outputs=20
        )
        store = run_here(recipe, tmp_path / "runs")
        summary = summary_of(tmp_path / "runs", name)
        if train:
            assert summary["stages"]["exchange"]["mode"] == name
        file = store.open("infer", summary["artifacts"]["infer"]["key"]).path("predictions.arrow")
        table = pa.ipc.open_file(file).read_all()
        found[name] = np.array(table["probabilities"].to_pylist())
    for name in ("independent", "cooperative"):
        np.testing.assert_allclose(found[name], found["alone"], atol=1e-5)


def test_a_load_plan_reads_every_row_once(tmp_path):
    """A row stands in one record: whatever is held between records is never used again."""
    recipe = recipe_of(
        tmp_path,
        "sign fp32",
        ingredients=1,
        epochs=2,
        outputs=40,
        features='layout = "gather"\n',
        extra='[order]\nmethod = "overlap"\ncache = "50%"\n',
    )
    run_here(recipe, tmp_path / "runs", ["train"])
    artifacts = run_here(recipe, tmp_path / "runs", ["loadplan", "train"])
    facts = artifacts["loadplan"].facts
    assert set(facts["rows"]) == set(facts["read"]) == {200}
    assert artifacts["train:0"].facts["epochs"] == 2


def test_any_number_of_threads_gives_the_same_bytes(tmp_path):
    found = []
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        folder.mkdir()
        artifacts = run_here(
            recipe_of(folder, "sign fp32", outputs=20), folder, ["pack", "order"], threads=threads
        )
        found.append({name: reader.digest for name, reader in artifacts.items()})
    assert found[0] == found[1]
    assert {"propagate", "influence:train", "quantize", "pack:train", "order"} <= set(found[0])
