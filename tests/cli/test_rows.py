"""Runs of models of rows from the source to predictions: codes, soups, ranks, cached rows, reports."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from stockpot import open_batches, open_model, open_records
from stockpot.stages.infer.stage import _features
from tests.graphs import write_recipe
from tests.runs import run_here

ROWS = 'method = "propagate"\n'
FEATURES = "\n[features]\npropagate = 2\n"
CASES = {
    "sign fp32": ("sign", "", ""),
    "sign lossy": ("sign", 'codec = "pq8"\ntier_share = 0.1\ntier_bytes = 4\n', ""),
    "sgc lossy": ("sgc", 'codec = "pq8"\n', ""),
    "sgc rounds": ("sgc", "", "rounds = 3\n"),
}


def recipe_of(folder, case, *, train="", batches=ROWS, **options):
    model, features, more = CASES[case]
    recipe = write_recipe(folder, nodes=400, model=model, extra=FEATURES + features, **options)
    text = recipe.read_text().replace("[train]", f"[train]\n{train}")
    recipe.write_text(text.replace("[batches]", f"[batches]\n{batches}{more}"))
    return recipe


def summary_of(folder):
    return json.loads((folder / "runs/tiny/summary.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_souped_and_asked_like_any_other(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tmp_path, case, outputs=20)
    store = run_here(recipe, tmp_path / "runs")
    summary = summary_of(tmp_path)
    assert "partition" not in summary["artifacts"]
    splits = summary["stages"]["pack"]["splits"]
    assert {
        name: (one["edges"], one["replication"]) for name, one in splits.items()
    } == dict.fromkeys(("train", "valid", "test"), (0, 1.0))
    # Every method of souping made a soup, and of equal rows records and whole graph agree.
    assert set(summary["soup"]["methods"]) == {
        "best", "uniform", "greedy", "gis", "learned", "signed"
    }  # fmt: skip
    assert summary["infer"]["full_graph_test_accuracy"] == summary["infer"]["test_accuracy"]
    model = open_model("runs/tiny")
    whole = _features(store.open("quantize", summary["artifacts"]["quantize"]["key"]))
    predicted = store.open("infer", summary["artifacts"]["infer"]["key"]).path("predictions.arrow")
    table = pa.ipc.open_file(predicted).read_all()
    ids = np.array(table["n_id"].to_pylist())
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
    assert len(open_records("runs/tiny")) == 10 * (3 if case == "sgc rounds" else 1)


def test_several_ranks_predict_what_one_process_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    accuracies = set()
    for name, train in (("one", ""), ("apart", "ranks = 2\n"),
                        ("together", 'ranks = 2\nexchange = "cooperative"\n')):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        recipe = recipe_of(
            folder, "sign lossy", train=f"dropout = 0.0\n{train}", ingredients=1, epochs=2
        )
        run_here(recipe, folder / "runs")
        summary = summary_of(folder)
        accuracies.add(
            (
                round(summary["train"]["ingredients"][0]["valid_accuracy"], 6),
                round(summary["infer"]["test_accuracy"], 6),
            )
        )
        if train:
            shared = summary["stages"]["exchange"]
            assert shared["mode"] == ("cooperative" if name == "together" else "independent")
    assert len(accuracies) == 1


def test_a_load_plan_and_shared_rows_serve_records_without_edges(tmp_path, monkeypatch):
    """Each row is read once an epoch, so that a cache can hold no more than a record needs."""
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tmp_path, "sign fp32", ingredients=1, epochs=2, outputs=40)
    found = []
    for folder, extra in (
        ("plain", ""),
        ("held", '\n[order]\nmethod = "overlap"\ncache = "50%"\n'),
    ):
        text = recipe.read_text().replace("propagate = 2\n", 'propagate = 2\nlayout = "gather"\n')
        other = tmp_path / "tiny.toml" if not extra else tmp_path / "held.toml"
        other.write_text(text + extra)
        run_here(other, tmp_path / folder)
        name = "held" if extra else "tiny"
        found.append(json.loads((tmp_path / folder / name / "summary.json").read_text()))
    print(found[1]["stages"]["loadplan"])


def test_any_number_of_threads_gives_the_same_bytes(tmp_path):
    found = []
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        folder.mkdir()
        artifacts = run_here(
            recipe_of(folder, "sign lossy", outputs=20), folder, ["pack", "order"], threads=threads
        )
        exact = {
            name: reader.digest
            for name, reader in artifacts.items()
            if reader.stage in ("propagate", "influence", "pack", "order")
        }
        found.append(exact)
    assert found[0] == found[1]
    assert len(found[0]) > 6
