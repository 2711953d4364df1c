"""`stockpot soup`: models of a run and models trained elsewhere, of any module; what does not fit
is one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

from stockpot.cli import main
from stockpot.souping.ingredients import named_as_in
from stockpot.stages.errors import Conflict
from stockpot.stages.train.state import read_metadata, read_state, state_digest
from stockpot.store.store import Store
from tests.graphs import write_recipe
from tests.pipeline.report.pages import sound
from tests.runs import run_here

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Batch norm, a tied matrix, an integer buffer, names of its own."""

    def __init__(self, features, hidden, classes):
        super().__init__()
        self.first, self.norm = nn.Linear(features, hidden), nn.BatchNorm1d(hidden)
        self.a, self.b = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.b.weight = self.a.weight
        self.head = nn.Linear(hidden, classes)
        self.register_buffer("places", torch.arange(3))

    def forward(self, x, edge_index):
        x = self.b(torch.relu(self.a(torch.relu(self.norm(self.first(x))))))
        return self.head(x.index_add(0, edge_index[1], x[edge_index[0]]))


def build(config):
    return Net(config["num_features"], config["hidden"], config["num_classes"])
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working directory with a run of two ingredients, the factory, and files of three of its
    models."""
    folder = tmp_path_factory.mktemp("home")
    run_here(write_recipe(folder, ingredients=2, epochs=4, nodes=600), folder / "runs")
    (folder / "souped_nets.py").write_text(NETS)
    return folder


@pytest.fixture
def here(home, monkeypatch, tmp_path):
    """The working directory, in it; files of models are the test's own."""
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(home)
    facts = Store("runs/store").open("pack", run()["artifacts"]["pack:valid"]["key"]).facts
    return lambda *noise, **options: elsewhere(tmp_path / "models", facts, noise, **options)


def run():
    return json.loads(Path("runs/tiny/run.json").read_text())


def elsewhere(folder, facts, noise, metadata=None):
    """Safetensors of models near one start, as `save_model` writes them: one name of a tied
    tensor."""
    import souped_nets

    folder.mkdir()
    torch.manual_seed(0)
    net = souped_nets.Net(facts["num_features"], 16, facts["num_classes"])
    start = {name: values.clone() for name, values in net.state_dict().items()}
    for i, scale in enumerate(noise):
        torch.manual_seed(i + 1)
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.copy_(start[name] + scale * torch.randn_like(p))
        net.norm.num_batches_tracked.fill_(i + 7)
        save_model(net, str(folder / f"{i}.safetensors"), metadata)
    return folder


FOREIGN = ("--batches", "runs/tiny", "--factory", "souped_nets:build", "--set", "train.hidden=16")


def soup(capsys, *words):
    """(exit code, document or None, what stood on stderr)"""
    code = main(["soup", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert code == 0 or (err.count("\n") == 1 and out == "" and "; fix: " in err), err
    return code, json.loads(out) if out else None, err


def test_the_soup_of_a_run_is_the_run_s_soup(here, capsys, tmp_path):
    code, document, _ = soup(capsys, "runs/tiny", "--out", tmp_path / "out")
    assert code == 0
    summary = json.loads(Path("runs/tiny/summary.json").read_text())
    assert document["chosen"] == summary["soup"]["chosen"]
    for name, method in summary["soup"]["methods"].items():
        assert document["methods"][name]["valid_accuracy"] == method["valid_accuracy"]
        assert document["methods"][name]["test_accuracy"] == method["test_accuracy"]
    for mine, theirs in zip(document["ingredients"], summary["train"]["ingredients"], strict=True):
        assert (mine["seed"], mine["test_accuracy"]) == (theirs["seed"], theirs["test_accuracy"])
    stored = Store("runs/store").open("soup", run()["artifacts"]["soup"]["key"])
    for path in sorted((tmp_path / "out").glob("*.safetensors")):
        assert state_digest(read_state(path)[0]) == state_digest(
            read_state(stored.path(path.name))[0]
        )
    assert json.loads((tmp_path / "out/soup.json").read_text()) == document
    page = sound((tmp_path / "out/report.html").read_text())
    assert "stockpot soup runs/tiny --out" in " ".join(page.words)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".safetensors") == [
        "report.html",
        "soup.json",
    ]


def test_models_from_elsewhere(here, capsys, tmp_path):
    folder = here(0.0, 0.01, 0.01)
    out = tmp_path / "out"
    code, document, _ = soup(capsys, folder, *FOREIGN, "--out", out, "--set", "soup.method=uniform")
    assert code == 0
    assert [Path(one["file"]).name for one in document["ingredients"]] == [
        f"{i}.safetensors" for i in range(3)
    ]
    assert "3 of 3 ingredients do not say their start: not compared" in document["remarks"]
    files = [load_file(folder / f"{i}.safetensors") for i in range(3)]
    found = load_file(out / "state.safetensors")
    for name in ("first.weight", "a.weight", "head.bias", "norm.weight"):
        mean = torch.stack([f[name].double() for f in files]).mean(0)
        torch.testing.assert_close(found[name].double(), mean, rtol=1e-6, atol=1e-7)
    assert torch.equal(found["a.weight"], found["b.weight"])
    assert torch.equal(found["places"], torch.arange(3))
    assert found["norm.num_batches_tracked"].dtype == torch.int64
    import souped_nets

    net = souped_nets.Net(*found["first.weight"].shape[::-1], found["head.bias"].numel())
    net.load_state_dict(found)
    assert set(document["methods"]) == {"best", "uniform"}
    assert all(m["test_accuracy"] is not None for m in document["methods"].values())


def test_one_model_is_its_own_soup(here, capsys, tmp_path):
    folder = here(0.01)
    code, document, _ = soup(capsys, folder / "0.safetensors", *FOREIGN, "--out", tmp_path / "out")
    assert (code, document["chosen"]) == (0, "best")
    mine, found = load_file(folder / "0.safetensors"), load_file(tmp_path / "out/state.safetensors")
    assert all(torch.equal(found[name], values) for name, values in mine.items())


def test_what_files_say_of_their_start_is_compared(here, capsys):
    folder = here(0.0, 0.1, metadata={"init_digest": "one", "seed": "5"})
    state = load_file(folder / "1.safetensors")
    save_file(state, folder / "1.safetensors", {"init_digest": "two"})
    code, _, err = soup(capsys, folder, *FOREIGN)
    assert code == 2
    assert "differ in init_digest: one against two" in err
    assert "0.safetensors" in err
    assert "1.safetensors" in err
    assert not (folder.parent / "models-soup" / "soup.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("missing",),
            (
                "soup: missing: expected a run, a train artifact, a folder of .safetensors files "
                "or one of them"
            ),
        ),
        (("empty", "--batches", "runs/tiny"), "holds no trained models"),
        (("models",), "soup: expected --batches with validation records, found none"),
        (
            ("models", "--batches", "runs/tiny"),
            "a model trained elsewhere needs the factory that builds it",
        ),
        (("models", "models/0.safetensors", *FOREIGN), "are one file"),
        (("models/text.safetensors", *FOREIGN), "expected a safetensors file"),
        (("models", *FOREIGN[:-1], "train.hidden=8"), "expected shape (8"),
        (("models", *FOREIGN[:3], "souped_nets:none"), "expected a callable none"),
        (("runs/tiny", "models", *FOREIGN), "differ in config"),
        (
            ("runs/tiny", "--set", "train.hiden=8"),
            "unknown key train.hiden, nearest is train.hidden",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(here, capsys, tmp_path, words, message):
    folder = here(0.0, 0.1)
    (tmp_path / "empty").mkdir()
    if "text" in words[0]:
        (folder / "text.safetensors").write_text("no")
    places = {"models", "empty"}
    given = [str(tmp_path / w) if w.split("/")[0] in places else w for w in words]
    code, _, err = soup(capsys, *given)
    assert code == 2
    assert message in err


def test_weights_that_are_no_numbers_are_refused_by_file_and_name(here, capsys):
    folder = here(0.0, 0.1)
    state = load_file(folder / "1.safetensors")
    state["head.bias"][0] = float("nan")
    save_file(state, folder / "1.safetensors")
    code, _, err = soup(capsys, folder, *FOREIGN)
    assert code == 2
    assert "1.safetensors" in err
    assert "head.bias" in err


def test_other_tensors_are_refused_by_file_and_name(here, capsys):
    folder = here(0.0, 0.1)
    state = load_file(folder / "1.safetensors")
    save_file({**state, "more": torch.ones(2)}, folder / "1.safetensors")
    code, _, err = soup(capsys, folder, *FOREIGN)
    assert code == 2
    assert "1.safetensors has a tensor more, unlike the model of the factory" in err
    save_file({n: v for n, v in state.items() if n != "head.bias"}, folder / "1.safetensors")
    code, _, err = soup(capsys, folder, *FOREIGN)
    assert "1.safetensors has no tensor head.bias, which the model of the factory has" in err


def test_tied_tensors_may_stand_under_any_of_their_names():
    model = torch.nn.Module()
    model.module = torch.nn.Module()
    model.module.a, model.module.b = (
        torch.nn.Linear(2, 2, bias=False),
        torch.nn.Linear(2, 2, bias=False),
    )
    model.module.b.weight = model.module.a.weight
    values = torch.ones(2, 2)
    for given in ({"a.weight": values}, {"b.weight": values}, {"module.a.weight": values}):
        assert set(named_as_in(model, given, "x")) == {"module.a.weight", "module.b.weight"}
    with pytest.raises(Conflict, match=r"x has no tensor a.weight"):
        named_as_in(model, {}, "x")


def test_models_of_a_run_and_of_a_file_are_put_together(here, capsys, tmp_path):
    store = Store("runs/store")
    paths = [
        store.open("train", run()["artifacts"][f"train:{i}"]["key"]).path("model.safetensors")
        for i in (0, 1)
    ]
    code, document, _ = soup(capsys, *paths, "--batches", "runs/tiny", "--out", tmp_path / "out")
    assert code == 0
    assert [one["file"] for one in document["ingredients"]] == [str(p) for p in paths]
    assert read_metadata(tmp_path / "out/chosen.safetensors")["method"] == document["chosen"]
    code, again, _ = soup(
        capsys, *(p.parent for p in paths), "--batches", "runs/tiny", "--out", tmp_path / "again"
    )
    assert [m["valid_accuracy"] for m in again["methods"].values()] == [
        m["valid_accuracy"] for m in document["methods"].values()
    ]


def test_it_speaks_to_a_person_too(here, capsys, tmp_path):
    assert main(["soup", "runs/tiny", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "runs/tiny train:1" in out
    assert "chosen on validation" in out
    assert "all 2 models together" in out
    assert f"written: {tmp_path / 'out' / 'chosen.safetensors'}" in out
