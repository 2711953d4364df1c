"""Steps of lossy codes bring codes to who asks for them, the rows they stand for to everybody
else."""

import numpy as np
import pytest
import torch

from stockpot import open_batches
from stockpot.stages.codec.coded_rows import Coded, dense
from stockpot.stages.loader.options import Schedule
from stockpot.stages.soup.kept_batches import first_layer_once, step_bytes
from stockpot.stages.train import trainer
from stockpot.stages.train.evaluate import evaluate, open_steps
from stockpot.stages.train.model import build_model
from tests.loaders import read_steps
from tests.packs import packed

CONFIG = {
    "num_features": 24,
    "hidden": 16,
    "num_classes": 4,
    "layers": 2,
    "dropout": 0.0,
    "normalization": "sym",
    "mass": "none",
    "self_loops": True,
    "heads": 2,
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("pack"), codec="sq1", features=24, shard_bytes=6000)[0]


@pytest.mark.parametrize("per_step", [1, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_codes_of_a_step_are_its_rows(pack, per_step, layers):
    options = {
        "layers": layers,
        "adj": "norm",
        "per_step": per_step,
        "shuffle": False,
        "transposes": "inner",
    }
    plain, coded = (read_steps(pack, coded=c, **options) for c in (False, True))
    for a, b in zip(plain, coded, strict=True):
        assert isinstance(a.x, torch.Tensor)
        assert isinstance(b.x, Coded)
        assert a.x.shape == b.x.shape
        assert torch.equal(a.x, b.x.decoded())
        assert torch.equal(a.n_id, b.n_id)
        assert a.adjs[0].t_csr is None
        assert torch.equal(b.adjs[0].t_csr.to_dense(), b.adjs[0].csr.to_dense().t())
    tables = {id(step.x.parts[0].tables) for step in coded}
    assert len(tables) == 1  # made once for all steps


def test_many_bytes_a_row_are_decoded_by_the_loader(tmp_path):
    wide = packed(tmp_path, codec="sq8", features=24)[0]
    assert isinstance(next(iter(read_steps(wide, layers=1, coded=True))).x, torch.Tensor)


def test_exact_codes_are_decoded_by_the_loader(tmp_path):
    exact = packed(tmp_path, codec="fp32")[0]
    assert isinstance(next(iter(read_steps(exact, layers=1, coded=True))).x, torch.Tensor)


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat"])
def test_models_are_given_codes_and_predict_as_from_rows(pack, name):
    model = build_model({"model": name, **CONFIG}, seed=1)
    steps = open_steps(pack, model, Schedule(shuffle=False), training=True)
    found = evaluate(model, steps)
    for step in steps:
        assert isinstance(step.x, Coded)
        logits, expected = model(step.x, step.adjs), model(dense(step.x), step.adjs)
        assert torch.allclose(logits, expected, atol=1e-4)
    assert found.labelled > 0


def test_models_of_ones_own_are_given_rows(pack, tmp_path, monkeypatch):
    (tmp_path / "own_rows.py").write_text(
        "import torch\n\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self, config):\n"
        "        super().__init__()\n"
        "        self.lin = torch.nn.Linear(config['num_features'], config['num_classes'])\n\n"
        "    def forward(self, x, edge_index):\n"
        "        return self.lin(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from stockpot.stages.train.factory import source_digest

    name = "own_rows:Own"
    model = build_model({"model": name, "source_digest": source_digest(name), **CONFIG}, seed=1)
    assert all(
        isinstance(step.x, torch.Tensor)
        for step in open_steps(pack, model, Schedule(shuffle=False))
    )


def test_a_training_step_on_codes_is_that_on_rows(pack):
    """Weights after a few steps of Adam agree to rounding."""
    found = []
    for coded in (True, False):
        model = build_model({"model": "sage", **CONFIG}, seed=1)
        adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        steps = read_steps(
            pack, layers=2, adj="mean", shuffle=False, transposes="inner", coded=coded
        )
        for i, step in enumerate(steps):
            trainer._step(model, adam, step, 0, i, "fp32")
        found.append([p.detach() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat"])
def test_soups_keep_sums_of_codes(pack, name):
    model = build_model({"model": name, **CONFIG}, seed=1).eval()
    for step in open_steps(pack, model, Schedule(shuffle=False)):
        once = first_layer_once(model, step)
        assert torch.allclose(model(once.x, once.adjs), model(dense(step.x), step.adjs), atol=1e-4)
        assert step_bytes(once) > 0


def test_open_batches_decodes_unless_asked(pack):
    rows, codes = (list(open_batches(pack, shuffle=False, coded=c)) for c in (False, True))
    for a, b in zip(rows, codes, strict=True):
        assert isinstance(a.x, torch.Tensor)
        assert torch.equal(b.x.decoded(), a.x)
        weight = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32))
        assert torch.allclose(b.x.times(weight), a.x @ weight.t(), atol=1e-4)
        assert b.num_nodes == a.num_nodes == len(a.n_id)
