"""The README's Python runs as it stands, on a run like the one it speaks of."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stockpot.stages.loader.data_batches import data_class
from tests.graphs import write_recipe
from tests.runs import run_here

data_class()  # torch_geometric's first import warns of torch's plans, which is an error here

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run in runs/wordnet."""
    folder = tmp_path_factory.mktemp("readme")
    extra = '[infer]\nfull_graph = false\n[soup]\nmethod = "best"\n'
    run_here(
        write_recipe(folder, "wordnet", nodes=400, epochs=2, ingredients=1, extra=extra),
        folder / "runs",
    )
    return folder


def block(*words):
    """The one block in which all these words stand."""
    (found,) = [text for text in BLOCKS if all(word in text for word in words)]
    return found


def executed(text):
    names = {"__name__": "readme"}
    exec(compile(text, "README.md", "exec"), names)
    return names


def test_every_block_is_run_by_a_test_below():
    assert len(BLOCKS) == 5
    for words in (
        ("cross_entropy",),
        ("DataLoader",),
        ("def build",),
        ("HagAggregation",),
        ("open_student",),
    ):
        assert block(*words)


def test_the_training_script_trains(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    names = executed(block("cross_entropy"))
    accuracies = [
        float(found) for found in re.findall(r"accuracy ([\d.]+)%", capsys.readouterr().out)
    ]
    assert len(accuracies) == 10
    assert accuracies[-1] > 60  # of 4 classes
    state = torch.load("checkpoint.pt")[2]
    assert (state["epoch"], state["step"]) == (10, 0)
    assert names["train"].state_dict() == state
    batch = next(iter(names["valid"]))
    assert names["soup"](batch.x, batch.adj_t).shape[1] == names["train"].num_classes == 4
    assert names["record"].n_id.dtype == np.int32


def test_the_loader_of_the_readme_reads_two_epochs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = executed(block("DataLoader"))
    assert names["loader"].dataset.state_dict(0)["epoch"] == 1


def test_the_student_of_the_readme_answers(tmp_path, monkeypatch):
    extra = '[features]\npropagate = 1\n[infer]\nby = "student"\n[student]\nepochs = 2\n'
    recipe = write_recipe(
        tmp_path, "wordnet", nodes=200, features=128, epochs=1, ingredients=1, extra=extra
    )
    run_here(recipe, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    names = executed(block("open_student"))
    assert names["known"].shape == (2, 4)
    assert names["new"].shape == (1, 4)


def test_the_factory_of_the_readme_builds_a_model():
    config = {"num_features": 5, "hidden": 8, "layers": 2, "num_classes": 3, "dropout": 0.5}
    model = executed(block("def build"))["build"](config)
    assert model(torch.randn(4, 5), torch.tensor([[0, 1], [1, 2]])).shape == (4, 3)
    assert "torch_geometric" in sys.modules


def test_the_aggregation_of_the_readme_is_the_layers(folder):
    names = executed(block("HagAggregation"))
    expected = names["conv"](names["x"], names["edge_index"])
    torch.testing.assert_close(names["out"], expected, rtol=1e-4, atol=1e-5)
