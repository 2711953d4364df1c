"""Models of the user's own: a module in the working directory, its digest in the key, every mistake
in one line."""

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.infer import STAGE as INFER
from stockpot.stages.infer.stage import Params as InferParams
from stockpot.stages.soup import STAGE as SOUP
from stockpot.stages.soup.stage import Params as SoupParams
from stockpot.stages.train import STAGE, trainer
from stockpot.stages.train.factory import factory_source, source_digest
from stockpot.stages.train.model import build_model, load_model
from tests.memory import MemoryReader, run_stage
from tests.stages.infer.test_infer import graph_readers
from tests.stages.steps import Loader, adj_of, community, packs
from tests.stages.train.test_train import BASE, RECIPE, Killed, kill_at, same

SAGE = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import GraphSAGE

def build(config):
    model = GraphSAGE(
        config["num_features"], config["hidden"], config["layers"], config["num_classes"],
        dropout=config["dropout"], norm="batch_norm",
    )
    model.trim = True
    return model

def whole(config):
    model = build(config)
    model.trim = False
    return model
"""
GCN = """
import torch

class Net(torch.nn.Module):
    adj = "norm"

    def __init__(self, c):
        super().__init__()
        self.lin = torch.nn.Linear(c["num_features"], c["num_classes"])

    def forward(self, x, edge_index, edge_weight):
        source, target = edge_index
        rows = self.lin(x)[source] * edge_weight[:, None]
        return torch.zeros_like(self.lin(x)).index_add_(0, target, rows)

build = Net
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Writes packages into a working directory of its own and forgets them again."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before, modules = list(sys.path), set(sys.modules)

    def write(text, module="mymodels.nets"):
        path = folder / (module.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    yield write
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        if name.split(".")[0] == "mymodels":
            del sys.modules[name]
    from stockpot.stages.train import factory

    factory._imported.clear()


def config_of(name, **changes):
    return {
        "model": name,
        "num_features": 8,
        "num_classes": 3,
        "hidden": 16,
        "layers": 3,
        "dropout": 0.5,
        "heads": 4,
        "normalization": "sym",
        "mass": "none",
        "self_loops": True,
        "source_digest": source_digest(name),
        **changes,
    }


def params_of(name, **changes):
    return replace(BASE, model=name, heads=4, source_digest=source_digest(name), **changes)


def test_the_key_holds_the_source_and_not_its_place(here, tmp_path, monkeypatch):
    here(SAGE)
    first = STAGE.resolve({**RECIPE, "train.model": "mymodels.nets:build"}, {})
    assert len(first.source_digest) == 32
    (tmp_path / "else" / "mymodels").mkdir(parents=True)
    (tmp_path / "else" / "mymodels" / "nets.py").write_text(SAGE)
    sys.path.remove(str(tmp_path / "work"))
    monkeypatch.chdir(tmp_path / "else")
    assert STAGE.resolve({**RECIPE, "train.model": "mymodels.nets:build"}, {}) == first
    (tmp_path / "else" / "mymodels" / "nets.py").write_text(SAGE + "\n")
    assert STAGE.resolve({**RECIPE, "train.model": "mymodels.nets:build"}, {}) != first
    assert "mymodels" not in sys.modules  # planning runs nothing of it


def test_a_trimmed_model_gives_the_outputs_of_the_whole_graph(here):
    here(SAGE)
    a, x, _ = community()
    trimmed, untrimmed = (
        build_model(config_of(f"mymodels.nets:{name}"), seed=3).eval()
        for name in ("build", "whole")
    )
    with torch.no_grad():
        expected = trimmed(torch.from_numpy(x), adj_of(a))
        for step in packs()["test"].batches(layers=3, adj="plain", shuffle=False):
            for model in (trimmed, untrimmed):
                found = model(step.x, step.adjs)
                assert found.shape == (step.batch_size, 3)
                torch.testing.assert_close(
                    found, expected[step.n_id[: step.batch_size]], rtol=1e-4, atol=1e-5
                )


def test_it_is_called_as_torch_geometric_calls_models(here):
    here(SAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import GraphSAGE
    model = build_model(config_of("mymodels.nets:whole"), seed=0).eval()
    peer = GraphSAGE(8, 16, 3, 3, norm="batch_norm").eval()
    peer.load_state_dict(model.module.state_dict())
    a, x, _ = community()
    source = np.stack([a.indices, np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))]).astype(
        np.int64
    )
    torch.testing.assert_close(
        model(torch.from_numpy(x), adj_of(a)), peer(torch.from_numpy(x), torch.from_numpy(source))
    )


def test_values_come_as_edge_weights(here):
    here(GCN)
    model = build_model(config_of("mymodels.nets:build"), seed=0)
    assert model.adj == "norm"
    step = packs()["train"].step(np.arange(9), 3, "norm", True)
    expected = step.adjs[0].csr @ model.module.lin(step.x)
    torch.testing.assert_close(model(step.x, step.adjs), expected[: step.batch_size])


def test_one_seed_is_one_start(here):
    here(SAGE)
    a, b, c = (
        build_model(config_of("mymodels.nets:build"), seed=s).state_dict() for s in (1, 1, 2)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_a_killed_training_resumes_bit_by_bit(here, tmp_path, monkeypatch):
    """Its dropout and its batch norm included."""
    here(SAGE)
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", 0.0)
    params = params_of("mymodels.nets:build")
    data = packs()

    def run(folder, hook=None):
        folder.mkdir(exist_ok=True)
        steps = data["train"].batches(layers=3, adj="plain", seed=0)
        valid = data["valid"].batches(layers=3, adj="plain", shuffle=False)
        loader = Loader(steps.steps, True, 0, hook)
        return trainer.train(
            params, config_of(params.model), loader, valid, folder, 1, lambda *_: None
        )

    torch.manual_seed(1)
    whole = run(tmp_path / "whole")
    torch.manual_seed(2)
    with pytest.raises(Killed):
        run(tmp_path / "cut", kill_at(1, 3))
    assert same(run(tmp_path / "cut"), whole)


def test_it_is_souped_and_asked_like_the_others(here, tmp_path):
    here(SAGE)
    data = packs()
    given = {"train": data["train"], "valid": data["valid"], "order": MemoryReader()}
    every = [params_of("mymodels.nets:build", epochs=12, index=i) for i in range(2)]
    singles = {
        f"ingredient:{i}": run_stage(STAGE, p, given, tmp_path / f"{i}")
        for i, p in enumerate(every)
    }
    assert singles["ingredient:0"].facts["valid_accuracy"] > 0.6
    soup = run_stage(
        SOUP,
        SoupParams("auto"),
        {"train": data["train"], "valid": data["valid"], **singles},
        tmp_path / "soup",
    )
    chosen = load_model(soup.path("chosen.safetensors"))
    assert chosen.state_dict()["module.norms.0.module.num_batches_tracked"].dtype == torch.int64
    graph = graph_readers(data["test"].graph)
    found = run_stage(
        INFER,
        InferParams(full_graph=True),
        {"outputs": data["test"], "soup": soup, **singles, **graph},
        tmp_path / "i",
    )
    # Records that hold all an output can see: influence-batched inference is exact for it too.
    assert found.facts["full_graph_test_accuracy"] == pytest.approx(found.facts["test_accuracy"])
    about = json.loads((tmp_path / "0" / "history.json").read_text())
    assert len(about) == 12
    facts = {"train": data["train"].facts, "valid": data["valid"].facts}
    assert STAGE.cost(every[0], facts).peak > STAGE.cost(replace(BASE, epochs=12), facts).peak


def test_a_source_changed_in_one_process_is_read_again(here):
    here(GCN)
    before = build_model(config_of("mymodels.nets:build"), seed=0)
    old = before.config
    here(GCN.replace('adj = "norm"', 'adj = "mean"'))
    assert build_model(config_of("mymodels.nets:build"), seed=0).adj == "mean"
    with pytest.raises(Conflict, match=r"nets\.py has digest .*, but .* made this model"):
        build_model(old, seed=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import nothing_like_it\nbuild = 1",
            r"cannot be imported: ModuleNotFoundError: No module named 'nothing_like",
        ),
        ("def build(:", "cannot be imported: SyntaxError"),
        ("other = 1", r"expected a callable build in .*nets\.py, found none"),
        ("build = 3", r"expected a callable build in .*nets\.py, found int"),
        (
            "def build(config):\n    return config['depth']",
            r"KeyError: 'depth' \(.*nets\.py, line 2\)",
        ),
        ("def build(config):\n    return 7", r"expected a torch\.nn\.Module, found int"),
        (
            "import torch\ndef build(c):\n    return torch.nn.ReLU()",
            "expected a model with weights of known shape",
        ),
        (
            "import torch\ndef build(c):\n    return torch.nn.LazyLinear(3)",
            "expected a model with weights of known shape",
        ),
        (GCN.replace('"norm"', '"gcn"'), "adj: expected plain"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(here, text, words):
    here(text)
    with pytest.raises(BadInput, match=words) as caught:
        build_model(config_of("mymodels.nets:build"))
    assert "\n" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("forward", "found"),
    [
        ("self.lin(x)[:2]", r"shape \(2, 3\)"),
        ("self.lin(x)[:, :1]", r"shape \(\d+, 1\)"),
        ("0", "int"),
    ],
)
def test_logits_of_another_shape_are_refused(here, forward, found):
    here(
        GCN.replace(
            "torch.zeros_like(self.lin(x)).index_add_(0, target, rows)",
            forward,
        )
    )
    model = build_model(config_of("mymodels.nets:build"), seed=0)
    step = packs()["train"].step(np.arange(9), 3, "norm", True)
    with pytest.raises(
        BadInput, match=rf"expected logits of shape \(at least 9 nodes, 3 classes\), found {found}"
    ):
        model(step.x, step.adjs)


@pytest.mark.parametrize(
    "name", ["mymodels.nets:", ":build", "my models:build", "mymodels.nets:a.b", "a:b:c"]
)
def test_names_of_another_form_are_refused(here, name):
    with pytest.raises(BadInput, match=r"expected package\.module:factory"):
        factory_source(name)


@pytest.mark.parametrize(
    "name", ["mymodels.nets:build", "sys:exit", "json.decoder.x:y", "__main__:build"]
)
def test_modules_that_are_not_there_are_refused(here, name):
    with pytest.raises(
        BadInput,
        match=r"expected a module .* with a source file, found none; fix: run in the folder",
    ):
        factory_source(name)
