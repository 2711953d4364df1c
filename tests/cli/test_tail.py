"""`train.ingredients = "tail"` and `train.validate` in whole runs: one training, and soups of its
last epochs."""

import json

import pytest
import torch

from stockpot.cli import main
from stockpot.stages.train.model import load_model
from stockpot.stages.train.state import read_state
from tests.graphs import write_recipe
from tests.pipeline.report.pages import sound
from tests.runs import run_here


def recipe_of(folder, schedule="constant", extra="", **options):
    path = write_recipe(folder, ingredients='"tail"', nodes=600, **options)
    text = path.read_text().replace('schedule = "cosine"', f'schedule = "{schedule}"')
    path.write_text(text + extra)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tail")
    store = run_here(recipe_of(folder, epochs=12), folder / "runs")
    return folder, store


def artifact(folder, store, name):
    entry = json.loads((folder / "runs/tiny/run.json").read_text())["artifacts"][name]
    return store.open(entry["stage"], entry["key"])


def test_a_run_soups_the_tail_of_one_training(finished):
    folder, store = finished
    summary = json.loads((folder / "runs/tiny/summary.json").read_text())
    singles = summary["train"]["ingredients"]
    assert [single["epochs"] for single in singles] == [6, 8, 10, 12]
    assert [single["epoch"] for single in singles] == [5, 7, 9, 11]
    assert {single["key"] for single in singles} == {artifact(folder, store, "train:0").key}
    seconds = artifact(folder, store, "train:0").manifest["notes"]["all"]["seconds"]
    assert sum(single["seconds"] for single in singles) == pytest.approx(seconds)
    assert all(0 <= single["valid_accuracy"] <= 1 for single in singles)
    assert all(0 <= single["test_accuracy"] <= 1 for single in singles)
    methods = summary["soup"]["methods"]
    assert set(methods) == {"best", "uniform", "greedy", "gis", "learned", "signed"}
    best = max(single["valid_accuracy"] for single in singles)
    assert methods["best"]["valid_accuracy"] == best
    assert methods["uniform"]["members"] == list(range(4))
    assert summary["soup"]["ensemble"]["models"] == 4
    assert summary["infer"]["test_accuracy"] is not None
    page = (folder / "runs/tiny/report.html").read_text()
    assert "single model 0, seed 0, epoch 6" in page
    assert not any("train.schedule" in line for line in summary["remarks"])


def test_the_uniform_soup_is_the_mean_of_the_checkpoints_in_float64(finished):
    folder, store = finished
    trained, soup = (artifact(folder, store, name) for name in ("train:0", "soup"))
    states = [read_state(trained.path(f"model-{i:02}.safetensors"))[0] for i in range(4)]
    mixed = read_state(soup.path("soup-uniform.safetensors"))[0]
    assert mixed.keys() == states[0].keys()
    for name, values in mixed.items():
        expected = torch.stack([state[name].double() for state in states]).mean(0)
        torch.testing.assert_close(values.double(), expected, rtol=6e-8, atol=1e-12)
    assert any(not torch.equal(states[0][name], states[3][name]) for name in mixed)


def test_the_verb_soup_finds_every_model_of_a_tail(finished, tmp_path, capsys):
    folder, store = finished
    summary = json.loads((folder / "runs/tiny/summary.json").read_text())
    trained = artifact(folder, store, "train:0")
    batches = ["--batches", str(folder / "runs/tiny")]
    for where, out in ((folder / "runs/tiny", "run"), (trained.root, "artifact")):
        words = ["soup", str(where), "--out", str(tmp_path / out), "--json", *batches]
        assert main([*words, "--set", "soup.method=uniform"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert len(document["ingredients"]) == 4
        uniform = document["methods"]["uniform"]
        assert uniform["valid_accuracy"] == summary["soup"]["methods"]["uniform"]["valid_accuracy"]
        mine = load_model(tmp_path / out / "soup-uniform.safetensors").state_dict()
        stored = artifact(folder, store, "soup").path("soup-uniform.safetensors")
        assert all(torch.equal(v, mine[name]) for name, v in read_state(stored)[0].items())


def test_a_tail_after_a_warm_up_on_all_nodes_with_few_validations(tmp_path):
    """With outputs held from the choice of epochs, all nodes asked for, and a rate that falls: the
    remark says what that costs."""
    extra = '[soup]\nmethod = "uniform"\nholdout = 0.5\n[infer]\nsplit = "all"\n'
    recipe = recipe_of(tmp_path, "cosine", extra, epochs=9)
    text = recipe.read_text().replace("[train]\n", "[train]\nwarmup = 4\nvalidate = 0.1\n")
    recipe.write_text(text)
    store = run_here(recipe, tmp_path / "runs")
    summary = json.loads((tmp_path / "runs/tiny/summary.json").read_text())
    singles = summary["train"]["ingredients"]
    assert [single["epochs"] for single in singles] == [5, 6, 7, 8, 9]
    assert summary["soup"]["chosen"] == "uniform"
    assert any("--set train.schedule=constant" in line for line in summary["remarks"])
    trained = artifact(tmp_path, store, "train:0")
    rows = json.loads(trained.path("history.json").read_text())
    # Every fifth, and where a model is kept.
    assert [row["epoch"] for row in rows if "valid_accuracy" in row] == [4, 5, 6, 7, 8]
    shared = json.loads(artifact(tmp_path, store, "warmup").path("history.json").read_text())
    assert [row["epoch"] for row in shared if "valid_accuracy" in row] == [3]
    sound((tmp_path / "runs/tiny/report.html").read_text())


def test_few_validations_report_the_accuracy_of_all_outputs(tmp_path):
    """The figure of a training that looks seldom is that of the soup stage, which sees them all."""
    recipe = write_recipe(tmp_path, ingredients=1, nodes=600, epochs=9)
    recipe.write_text(recipe.read_text().replace("[train]\n", "[train]\nvalidate = 0.2\n"))
    store = run_here(recipe, tmp_path / "runs")
    trained, soup = (artifact(tmp_path, store, name) for name in ("train:0", "soup"))
    every = trained.manifest["params"]["validate_every"]
    rows = json.loads(trained.path("history.json").read_text())
    packed = {s: artifact(tmp_path, store, f"pack:{s}").facts["rows"] for s in ("train", "valid")}
    assert every > 1
    assert packed["valid"] <= 0.2 * (packed["valid"] + every * packed["train"])
    expected = sorted({*range(every - 1, 9, every), 8})
    assert [row["epoch"] for row in rows if "valid_accuracy" in row] == expected
    assert trained.facts["valid_accuracy"] == soup.facts["ingredients"][0]["valid_accuracy"]
    assert trained.facts["best_epoch"] in expected


@pytest.mark.parametrize("asked", ['"head"', '["tail", 3]', "0", "2.5"])
def test_ingredients_are_a_number_or_a_tail(tmp_path, asked, capsys):
    recipe = write_recipe(tmp_path, ingredients=asked, nodes=200)
    assert main(["plan", str(recipe), "--runs", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert "train.ingredients: expected" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("asked", ["0", "1.5", "-1", '"never"'])
def test_validate_is_a_share_or_auto(tmp_path, asked, capsys):
    recipe = write_recipe(tmp_path, ingredients=1, nodes=200, epochs=2)
    recipe.write_text(recipe.read_text().replace("[train]\n", f"[train]\nvalidate = {asked}\n"))
    assert main(["plan", str(recipe), "--runs", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert "train.validate: expected" in err
    assert err.count("\n") == 1


def test_a_tail_too_short_is_refused_by_the_plan(tmp_path, capsys):
    recipe = recipe_of(tmp_path, epochs=1)
    assert main(["plan", str(recipe), "--runs", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert "train.ingredients: a tail is two epochs at least" in err
    assert "fix: --set train.epochs=2" in err
