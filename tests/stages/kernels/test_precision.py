"""Steps whose dense products are bfloat16: near the exact ones, and float32 wherever sums are
long."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from stockpot.stages.errors import BadInput
from stockpot.stages.kernels import precision
from stockpot.stages.kernels.precision import checked, in_float32, products
from stockpot.stages.step import Adj
from stockpot.stages.train import trainer
from stockpot.stages.train.convs import GCNConv
from stockpot.stages.train.model import build_model
from tests.stages.steps import packs
from tests.stages.train.test_train import BASE, Killed, kill_at, run, same

NAMES = ["gcn", "sage", "gin", "gat"]
CONFIG = {
    "num_features": 8,
    "num_classes": 3,
    "hidden": 16,
    "layers": 3,
    "dropout": 0.0,
    "heads": 4,
}
CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_gradients_are_near_those_of_float32(kind, device):
    model = build_model({**CONFIG, "model": kind}, seed=0).to(device)
    step = packs()["train"].step(np.arange(40), 3, model.adj, True)
    adjs = [
        Adj(*(None if t is None else t.to(device) for t in (a.csr, a.t_csr, a.places)))
        for a in step.adjs
    ]
    x, y = step.x.to(device), step.y.to(device)
    grads = []
    for name in ("fp32", "bf16"):
        model.zero_grad()
        with products(name, torch.device(device)):
            logits = model(x, adjs).float()
        torch.nn.functional.cross_entropy(logits, y, ignore_index=-1).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    exact, near = grads
    assert near.dtype == torch.float32
    assert not torch.equal(exact, near)
    assert float((exact - near).norm() / exact.norm()) < 0.05


def test_sums_over_neighbours_are_float32():
    seen = []

    @in_float32
    def kernel(csr, x, word):
        seen.append((csr.dtype, x.dtype, torch.is_autocast_enabled("cpu"), word))
        return x

    conv = GCNConv(4, 4)
    conv.reset_parameters()
    x = torch.randn(3, 4)
    with products("bf16", CPU):
        narrow = conv.lin(x)
        assert narrow.dtype == torch.bfloat16
        assert torch.equal(kernel(torch.eye(3), narrow, "a"), narrow.float())
    kernel(torch.eye(3).double(), x.double(), "b")
    assert seen == [
        (torch.float32, torch.float32, False, "a"),
        (torch.float64, torch.float64, False, "b"),
    ]


@pytest.mark.parametrize("model", NAMES)
def test_it_learns_and_resumes_bit_by_bit(tmp_path, monkeypatch, model):
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", 0.0)
    params = replace(BASE, model=model, heads=4 * (model == "gat"), precision="bf16", epochs=12)
    whole = run(tmp_path / "whole", params)
    assert whole.best["accuracy"] > 0.6
    assert all(values.dtype == torch.float32 for _, values in whole.model.named_parameters())
    with pytest.raises(Killed):
        run(tmp_path / "cut", params, kill_at(1, 3))
    assert same(run(tmp_path / "cut", params), whole)


def test_a_machine_without_it_is_told(monkeypatch):
    assert checked("fp32", "cuda") == []
    monkeypatch.setattr(precision.Path, "read_text", lambda self: "flags : sse avx2\n")
    monkeypatch.setattr(precision, "emulated_cost", lambda: 3.94)
    (word,) = checked("bf16", "cpu")
    assert word == (
        "this CPU names no bf16 instructions and emulates them: a dense product of "
        "train.precision=bf16 takes 3.9 times as long as one of fp32 here; "
        "--set train.precision=fp32"
    )
    monkeypatch.setattr(precision.Path, "read_text", lambda self: "flags : avx2 avx512_bf16\n")
    assert checked("bf16", "cpu") == []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    with pytest.raises(
        BadInput, match=r"train.precision: Tesla V100 has no bf16; fix: --set train.precision=fp32"
    ):
        checked("bf16", "cuda:0")


def test_the_cost_is_that_of_the_products_alone(monkeypatch):
    """By a clock that gives every product of bfloat16 three times the seconds."""
    ticks = itertools.accumulate(itertools.cycle([0.0, 1.0, 0.0, 3.0]))  # start, end; start, end
    monkeypatch.setattr(precision.time, "thread_time", lambda: next(ticks))
    assert precision.emulated_cost() == 3.0
