"""Ingredients that share their first epochs, differ mildly, or are averages of their own steps."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.train import STAGE, trainer
from stockpot.stages.train.ema import Ema
from stockpot.stages.train.evaluate import Score
from stockpot.stages.train.model import build_model, load_model
from stockpot.stages.train.ranges import factor, varied_odds
from stockpot.stages.train.state import read_metadata, read_state, state_digest, write_state
from stockpot.stages.warmup import STAGE as WARMUP
from tests.memory import MemoryReader, run_stage
from tests.stages.steps import Loader, packs
from tests.stages.train.test_train import BASE, CONFIG, RECIPE, Killed, kill_at

SHARED = replace(
    BASE, epochs=5, warmup=2, dropout=0.0, lr=0.002
)  # slow: the last epochs are the best


@pytest.fixture(scope="module")
def data():
    return packs()


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(trainer, "CHECKPOINT_AFTER_S", 0.0)


def train(data, folder, params, hook=None, **files):
    folder.mkdir(exist_ok=True, parents=True)
    config = {**CONFIG, "model": params.model, "dropout": params.dropout}
    adj = build_model(config).adj
    steps = data["train"].batches(layers=3, adj=adj, seed=params.seed + params.index)
    valid = data["valid"].batches(layers=3, adj=adj, shuffle=False)
    loader = Loader(steps.steps, True, steps.seed, hook)
    return trainer.train(params, config, loader, valid, folder, 1, lambda *_: None, **files)


def branch(data, root, params):
    """The warm-up of `params`, then its ingredient."""
    root.mkdir(exist_ok=True, parents=True)
    shared = train(
        data, root / "w", replace(params, index=0, ema=0.0), warmup=root / "start.safetensors"
    )
    return shared, train(data, root / "i", params, start=root / "start.safetensors")


def test_what_follows_a_warm_up_goes_on_at_the_rate_it_ended_with(tmp_path, data, monkeypatch):
    monkeypatch.setitem(trainer.PLATEAU, "patience", 0)
    params = replace(SHARED, schedule="plateau", lr=0.3, epochs=6, warmup=4)
    shared, rest = branch(data, tmp_path, params)
    ended = read_metadata(tmp_path / "start.safetensors")["rate"]
    assert ended < 1
    assert rest.history[0]["lr"] == pytest.approx(ended * 0.3)
    assert rest.history[0]["lr"] <= shared.history[-1]["lr"]


def test_a_warm_up_runs_its_epochs_whatever_validation_says(tmp_path, data, monkeypatch):
    """Its ingredients stop early, it does not: all of them count from its last epoch."""
    falling = (Score(10 - k, 100, 1.0) for k in itertools.count())
    monkeypatch.setattr(trainer, "evaluate", lambda *_: next(falling))
    params = replace(SHARED, epochs=6, warmup=4, patience=1)
    shared, rest = branch(data, tmp_path, params)
    assert [row["epoch"] for row in shared.history] == [0, 1, 2, 3]
    assert [row["epoch"] for row in rest.history] == [4, 5]
    assert len(train(data, tmp_path / "alone", replace(params, warmup=0)).history) == 2


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_warm_up_and_what_follows_are_one_training(tmp_path, data, schedule):
    """Without random masks, ingredient 0 of a shared start is the training that was never parted,
    bit by bit."""
    params = replace(SHARED, schedule=schedule)
    whole = train(data, tmp_path / "whole", replace(params, warmup=0))
    shared, rest = branch(data, tmp_path, params)
    assert [row["epoch"] for row in shared.history + rest.history] == list(range(5))
    assert shared.history + rest.history == whole.history
    assert whole.best["epoch"] >= 2
    mine, theirs = rest.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert shared.init_digest == whole.init_digest
    assert rest.init_digest == state_digest(shared.model.state_dict())


def test_ingredients_share_the_start_and_differ_after_it(tmp_path, data):
    inputs = {"train": data["train"], "valid": data["valid"], "order": MemoryReader()}
    params = replace(SHARED, dropout=0.5)
    shared = run_stage(WARMUP, params, inputs, tmp_path / "w")
    assert shared.facts["epochs"] == 2
    inputs["start"] = shared
    found = [run_stage(STAGE, replace(params, index=i), inputs, tmp_path / f"{i}") for i in (0, 1)]
    starts = {f.facts["init_digest"] for f in found}
    assert starts == {state_digest(load_model(shared.path("model.safetensors")).state_dict())}
    assert starts != {shared.facts["init_digest"]}
    a, b = (read_state(f.path("model.safetensors"))[0] for f in found)
    assert any(not torch.equal(a[k], b[k]) for k in a)
    assert all(f.facts["epochs"] == 3 and f.facts["best_epoch"] >= 2 for f in found)
    assert "start" in read_metadata(found[0].path("model.safetensors"))["inputs"]


def test_the_plateau_rate_of_a_warm_up_goes_on_as_a_share(tmp_path, data):
    params = replace(SHARED, schedule="plateau")
    shared, rest = branch(data, tmp_path, replace(params, index=1, lr=0.02))
    assert shared.history[-1]["lr"] == rest.history[0]["lr"] == 0.02
    again = train(
        data,
        tmp_path / "other",
        replace(params, index=1, lr=0.005),
        start=tmp_path / "start.safetensors",
    )
    assert again.history[0]["lr"] == 0.005


@pytest.mark.parametrize(("epoch", "step"), [(2, 0), (2, 4), (3, 1)])
def test_a_killed_ingredient_of_averages_resumes_bit_by_bit(
    tmp_path, data, every_step, epoch, step
):
    params = replace(SHARED, dropout=0.5, ema=0.8, index=1)
    _, alone = branch(data, tmp_path, params)
    start = tmp_path / "start.safetensors"
    with pytest.raises(Killed):
        train(data, tmp_path / "killed", params, kill_at(epoch, step), start=start)
    again = train(data, tmp_path / "killed", params, start=start)
    mine, theirs = again.model.state_dict(), alone.model.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert again.history == alone.history
    assert again.init_digest == alone.init_digest


def test_a_killed_warm_up_resumes_bit_by_bit(tmp_path, data, every_step):
    params = replace(SHARED, dropout=0.5)
    train(data, tmp_path / "a", params, warmup=tmp_path / "a.safetensors")
    with pytest.raises(Killed):
        train(data, tmp_path / "b", params, kill_at(1, 2), warmup=tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
    train(data, tmp_path / "b", params, warmup=tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_start_of_another_model_is_refused(tmp_path, data):
    train(data, tmp_path / "a", SHARED, warmup=tmp_path / "a.safetensors")
    with pytest.raises(
        Corrupt, match=r"a.safetensors: expected the start of a model like this one"
    ):
        train(data, tmp_path / "b", replace(SHARED, model="sage"), start=tmp_path / "a.safetensors")


def test_averaging_does_not_change_the_training(tmp_path, data):
    plain = train(data, tmp_path / "a", replace(BASE, epochs=3))
    averaged = train(data, tmp_path / "b", replace(BASE, epochs=3, ema=0.9))
    assert [r["loss"] for r in plain.history] == [r["loss"] for r in averaged.history]
    assert [r["valid_loss"] for r in plain.history] != [r["valid_loss"] for r in averaged.history]


@given(st.floats(0.1, 0.99), st.integers(1, 6), st.integers(0, 5))
def test_an_average_is_the_sum_of_its_powers(decay, steps, seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3)
    )
    model[2].weight = model[0].weight  # tied
    ema = Ema(model, decay)
    expected = {
        n: p.detach().double().clone() for n, p in model.named_parameters(remove_duplicate=False)
    }
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        model(torch.randn(5, 3))
        ema.update(model)
        for n, p in model.named_parameters(remove_duplicate=False):
            expected[n] = decay * expected[n] + (1 - decay) * p.detach().double()
    own = {n: v.clone() for n, v in model.state_dict().items()}
    with ema.used_by(model):
        for n, p in model.named_parameters(remove_duplicate=False):
            torch.testing.assert_close(p.detach().double(), expected[n], rtol=1e-5, atol=1e-5)
        assert model[1].num_batches_tracked == steps  # a buffer is the model's own
        assert torch.equal(model[1].running_var, own["1.running_var"])
    assert all(torch.equal(own[n], v) for n, v in model.state_dict().items())


def test_tied_tensors_and_numbers_of_any_type_are_written_under_every_name(tmp_path):
    w = torch.randn(4, 4)
    state = {
        "a": w,
        "b": w,
        "part": w[:2],
        "n": torch.tensor(3),
        "flag": torch.tensor([True]),
        "none": torch.empty(0),
    }
    write_state(tmp_path / "x.safetensors", state, {})
    found = read_state(tmp_path / "x.safetensors")[0]
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in state.items())


@given(st.floats(1.0, 10.0), st.integers(0, 1000), st.integers(0, 100))
def test_ranges_are_mild_and_the_first_ingredient_is_the_recipe(vary, seed, index):
    found = factor(vary, seed, index, "lr")
    assert 1 / vary * (1 - 1e-12) <= found <= vary * (1 + 1e-12)
    assert factor(vary, seed, 0, "lr") == 1.0
    assert found == factor(vary, seed, index, "lr")
    assert 0 <= varied_odds(0.5, found) < 1
    assert varied_odds(0.0, found) == 0.0


def test_draws_spread_over_the_range():
    drawn = torch.tensor([factor(2.0, 0, i, "lr") for i in range(1, 400)]).log2()
    assert abs(drawn.mean()) < 0.1
    assert drawn.min() < -0.95
    assert drawn.max() > 0.95


def test_the_recipe_s_ranges_become_each_ingredient_s_own_numbers():
    recipe = {**RECIPE, "train.vary": 2.0, "train.weight_decay": 1e-4}
    found = [STAGE.resolve({**recipe, "index": i}, {}) for i in range(4)]
    assert (found[0].lr, found[0].dropout, found[0].weight_decay) == (1e-3, 0.5, 1e-4)
    assert len({p.lr for p in found}) == len({p.dropout for p in found}) == 4
    assert all(5e-4 <= p.lr <= 2e-3 and 1 / 3 <= p.dropout <= 2 / 3 for p in found)
    alike = STAGE.resolve({**RECIPE, "index": 3}, {})
    assert replace(alike, index=0) == STAGE.resolve({**RECIPE, "index": 0}, {})


def test_what_only_ingredients_read_leaves_the_warm_up_alone():
    recipe = {**RECIPE, "train.warmup": 2}
    base = WARMUP.resolve({k: v for k, v in recipe.items() if k in WARMUP.reads}, {})
    assert base.warmup == 2
    assert not {"train.vary", "train.ema", "train.patience"} & set(WARMUP.reads)


def test_a_warmup_of_all_epochs_is_refused():
    with pytest.raises(
        BadInput, match=r"train.warmup: expected fewer than train.epochs \(9\), found 9"
    ):
        STAGE.resolve({**RECIPE, "train.warmup": 9}, {})
