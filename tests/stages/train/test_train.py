import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from stockpot.stages.errors import BadInput, StockpotError
from stockpot.stages.exchange.rank_step import ShareStep
from stockpot.stages.processes.process_group import Team
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.stage import OFF
from stockpot.stages.train import STAGE, checkpoint, trainer
from stockpot.stages.train.evaluate import Score, evaluate
from stockpot.stages.train.ingredient import count, ingredients
from stockpot.stages.train.model import MODELS, build_model, load_model
from stockpot.stages.train.state import read_metadata, state_digest
from stockpot.stages.train.train_params import NAMES, TAIL_MODELS, Params, model_config
from stockpot.stages.train.train_params import TAIL as TAIL_SHARE
from tests.memory import MemoryReader, run_stage
from tests.stages.steps import Loader, Pack, community, packs

BASE = Params(
    model="gcn",
    per_step=1,
    layers=3,
    hidden=16,
    dropout=0.5,
    lr=0.01,
    weight_decay=1e-4,
    schedule="cosine",
    epochs=3,
    patience=50,
    seed=0,
    index=0,
    device="cpu",
    normalization="sym",
    mass="none",
    self_loops=True,
)
RECIPE = {
    "train.model": "gcn",
    "train.per_step": 2,
    "train.layers": 3,
    "train.hidden": 16,
    "train.heads": 4,
    "train.dropout": 0.5,
    "train.lr": 1e-3,
    "train.weight_decay": 0.0,
    "train.schedule": "plateau",
    "train.epochs": 9,
    "train.patience": 5,
    "train.seed": 1,
    "train.warmup": 0,
    "train.vary": 1.0,
    "train.ema": 0.0,
    "train.precision": "fp32",
    "train.keep": "best",
    "train.validate": "auto",
    "train.ingredients": 8,
    "train.device": "cpu",
    "train.ranks": 1,
    "train.exchange": "auto",
    "train.storage_gbs": 1.0,
    "train.interconnect_gbs": 0.0,
    "graph.normalization": "rw",
    "graph.mass": "row",
    "graph.self_loops": True,
    "index": 2,
    "soup.holdout": 0.0,
}
CONFIG = {
    "num_features": 8,
    "num_classes": 3,
    "hidden": 16,
    "layers": 3,
    "dropout": 0.5,
    "model": "gcn",
    "heads": 4,
}


class Killed(Exception):
    pass


def kill_at(epoch, step):
    def hook(e, s):
        if (e, s) == (epoch, step):
            raise Killed

    return hook


def run(folder, params=BASE, hook=None, threads=1, unlabelled=0.1, config=CONFIG):
    data = packs(unlabelled=unlabelled)
    folder.mkdir(exist_ok=True)
    config = {**config, "model": params.model} | ({"heads": params.heads} if params.heads else {})
    adj = build_model(config).adj
    steps = data["train"].batches(layers=config["layers"], adj=adj, seed=params.seed + params.index)
    valid = data["valid"].batches(layers=config["layers"], adj=adj, shuffle=False)
    loader = Loader(steps.steps, True, steps.seed, hook)
    return trainer.train(params, config, loader, valid, folder, threads, lambda *_: None)


def same(a, b):
    mine, theirs = a.model.state_dict(), b.model.state_dict()
    return (
        all(torch.equal(mine[k], theirs[k]) for k in mine)
        and a.history == b.history
        and a.best == b.best
    )


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(trainer, "CHECKPOINT_AFTER_S", 0.0)


@pytest.mark.parametrize("model", NAMES)
def test_it_learns(tmp_path, model):
    # Models of rows take the columns for x and Mx: what a linear map of one half tells is less.
    rows = {"layers": 0, "head": 3, "hops": 1} if model in ROW_MODELS else {}
    params = replace(BASE, model=model, epochs=25, heads=4 * (model == "gat"))
    result = run(tmp_path, params, config=CONFIG | rows)
    assert result.best["accuracy"] > (0.7 if model == "sgc" else 0.8)
    assert result.best["accuracy"] == max(row["valid_accuracy"] for row in result.history)
    assert not result.model.training


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (1, 0), (1, 5), (2, 2)])
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_killed_training_resumes_bit_by_bit(tmp_path, every_step, epoch, step, schedule):
    params = replace(BASE, schedule=schedule)
    whole = run(tmp_path / "whole", params)
    with pytest.raises(Killed):
        run(tmp_path / "cut", params, kill_at(epoch, step))
    assert same(run(tmp_path / "cut", params), whole)


def test_the_last_epoch_s_weights_are_kept_where_validation_is_left_to_soups(tmp_path, every_step):
    """No early stop, and no pick: the weights are those a training of that many epochs ends
    with."""
    params = replace(BASE, lr=0.05, schedule="constant", epochs=8, patience=1)
    best, last = (
        run(tmp_path / "best", params),
        run(tmp_path / "last", replace(params, keep="last")),
    )
    assert len(last.history) == 8
    assert last.best["epoch"] == 7
    assert last.best["accuracy"] == last.history[-1]["valid_accuracy"]
    assert last.history[: len(best.history)] == best.history  # validation moves nothing
    assert len(best.history) < 8
    assert best.best["accuracy"] == max(row["valid_accuracy"] for row in best.history)
    data = packs()
    adj = build_model({**CONFIG, "model": "gcn"}).adj
    found = evaluate(last.model, data["valid"].batches(layers=3, adj=adj, shuffle=False))
    assert found.accuracy == last.history[-1]["valid_accuracy"]
    with pytest.raises(Killed):
        run(tmp_path / "cut", replace(params, keep="last"), kill_at(5, 2))
    assert same(run(tmp_path / "cut", replace(params, keep="last")), last)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_epochs_between_validations_train_as_all_others(tmp_path, schedule):
    """What is scored, how seldom it may be, is the same weights; the epoch kept is the best of
    those scored."""
    params = replace(BASE, lr=0.05, schedule=schedule, epochs=8)
    every = run(tmp_path / "every", params)
    third = run(tmp_path / "third", replace(params, validate_every=3))
    scored = {2, 5, 7}  # the last one in any case
    for row, full in zip(third.history, every.history, strict=True):
        if row["epoch"] in scored:
            assert row == full
        else:
            assert row == {k: v for k, v in full.items() if not k.startswith("valid")}
    rank = {
        e: (every.history[e]["valid_accuracy"], -every.history[e]["valid_loss"]) for e in scored
    }
    best = max(sorted(scored), key=rank.__getitem__)
    assert third.best == {"epoch": best, "accuracy": rank[best][0], "loss": -rank[best][1]}
    data = packs()
    adj = build_model({**CONFIG, "model": "gcn"}).adj
    found = evaluate(third.model, data["valid"].batches(layers=3, adj=adj, shuffle=False))
    assert (found.accuracy, found.loss) == (third.best["accuracy"], third.best["loss"])


@pytest.mark.parametrize(("epoch", "step"), [(1, 2), (3, 0), (5, 3), (7, 1)])
def test_a_training_killed_between_validations_resumes_bit_by_bit(
    tmp_path, every_step, epoch, step
):
    params = replace(BASE, lr=0.05, schedule="plateau", epochs=8, validate_every=3, ema=0.5)
    whole = run(tmp_path / "whole", params)
    with pytest.raises(Killed):
        run(tmp_path / "cut", params, kill_at(epoch, step))
    assert same(run(tmp_path / "cut", params), whole)


@pytest.mark.parametrize(("every", "patience"), [(1, 4), (3, 4), (3, 6), (5, 2)])
def test_patience_ends_with_a_validation(tmp_path, every, patience):
    """The epochs without a better one that are waited for are whole spans between validations."""
    params = replace(
        BASE, lr=0.05, schedule="constant", epochs=60, patience=patience, validate_every=every
    )
    found = run(tmp_path, params)
    assert len(found.history) < 60
    waited = len(found.history) - 1 - found.best["epoch"]
    assert waited == -(-patience // every) * every
    assert "valid_accuracy" in found.history[-1]


def test_a_plateau_waits_for_as_many_epochs_where_validations_are_few(tmp_path):
    """A loss that never falls lowers the rate after as many epochs, in whole validations."""
    flat = replace(BASE, lr=3e-8, schedule="plateau", epochs=26)  # nothing is learned
    falls = {}
    for every in (1, 2, 5):
        rows = run(tmp_path / str(every), replace(flat, validate_every=every)).history
        falls[every] = next(row["epoch"] for row in rows if row["lr"] < flat.lr)
    # A first one, ten epochs of patience, and one more: in validations 12, 1 + 5 + 1 and 1 + 2 + 1.
    assert falls == {1: 12, 2: 14, 5: 20}


def test_every_ingredient_drops_units_of_its_own(tmp_path):
    """The same steps in the same order: what sets two ingredients apart is the stream their dropout
    is drawn from."""

    def trained(index, dropout):
        data = packs()
        config = {**CONFIG, "model": "gcn", "dropout": dropout}
        adj = build_model(config).adj
        steps = Loader(data["train"].batches(layers=3, adj=adj).steps, shuffle=False)
        valid = data["valid"].batches(layers=3, adj=adj, shuffle=False)
        folder = tmp_path / f"{index}-{dropout}"
        folder.mkdir()
        params = replace(BASE, epochs=1, index=index, dropout=dropout)
        return trainer.train(
            params, config, steps, valid, folder, 1, lambda *_: None
        ).model.state_dict()

    first, other = trained(0, 0.5), trained(1, 0.5)
    assert not any(
        torch.equal(first[name], other[name]) for name in first if name.endswith("lin.weight")
    )
    first, other = trained(0, 0.0), trained(1, 0.0)
    assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("model", ["gat", "gin"])
def test_other_models_resume_bit_by_bit(tmp_path, every_step, model):
    params = replace(BASE, model=model, heads=4 * (model == "gat"))
    whole = run(tmp_path / "whole", params)
    with pytest.raises(Killed):
        run(tmp_path / "cut", params, kill_at(1, 3))
    assert same(run(tmp_path / "cut", params), whole)


def test_many_kills_in_one_training(tmp_path, every_step):
    whole = run(tmp_path / "whole", replace(BASE, model="sage"))
    for at in ((0, 1), (0, 2), (0, 5), (1, 1), (2, 0), (2, 5)):
        with pytest.raises(Killed):
            run(tmp_path / "cut", replace(BASE, model="sage"), kill_at(*at))
    assert same(run(tmp_path / "cut", replace(BASE, model="sage")), whole)


def test_the_learning_rate_of_a_plateau_survives_a_kill(tmp_path, every_step, monkeypatch):
    monkeypatch.setitem(trainer.PLATEAU, "patience", 0)
    params = replace(BASE, schedule="plateau", lr=0.3, epochs=12)
    whole = run(tmp_path / "whole", params)
    assert whole.history[-1]["lr"] < 0.3
    with pytest.raises(Killed):
        run(tmp_path / "cut", params, kill_at(11, 1))
    assert same(run(tmp_path / "cut", params), whole)


SCRIPT = """
import sys, time
from pathlib import Path
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.train import trainer
from tests.stages.train import test_train as t
trainer.CHECKPOINT_EVERY_S = trainer.CHECKPOINT_AFTER_S = 0.0
t.run(Path(sys.argv[1]), hook=lambda e, s: time.sleep(0.05))
"""


def modified(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # between the two renames of a save
        return 0


def test_sigkill_at_any_moment(tmp_path, every_step):
    whole = run(tmp_path / "whole")
    newest, before = tmp_path / "cut" / checkpoint.NEWEST, 0
    for delay in (0.0, 0.13, 0.31):
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "cut")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 60
        # A checkpoint of its own, not of the one before: each kill hits a training, not its
        # imports.
        while modified(newest) <= before and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert modified(newest) > before or child.poll() == 0
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        before = modified(newest)
    assert newest.exists() or newest.with_name(checkpoint.PREVIOUS).exists()
    assert same(run(tmp_path / "cut"), whole)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, every_step):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", hook=kill_at(1, 3))
    newest = tmp_path / "cut" / checkpoint.NEWEST
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 4
    newest.write_bytes(data)
    result = run(tmp_path / "cut")
    assert same(result, whole)
    assert "set aside as checkpoint.damaged" in result.words[0]
    assert (tmp_path / "cut" / "checkpoint.damaged").exists()


def test_two_damaged_checkpoints_start_from_the_beginning(tmp_path, every_step):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", hook=kill_at(1, 3))
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        (tmp_path / "cut" / name).write_bytes(b"no tensors")
    result = run(tmp_path / "cut")
    assert same(result, whole)
    assert result.words[-1] == "training starts from the beginning"


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, every_step):
    whole = run(tmp_path / "whole", replace(BASE, lr=0.02))
    with pytest.raises(Killed):
        run(tmp_path / "cut", hook=kill_at(1, 3))
    result = run(tmp_path / "cut", replace(BASE, lr=0.02))
    assert same(result, whole)
    assert "another training" in result.words[0]


def test_a_resumed_training_keeps_its_thread_count_and_says_so(tmp_path, every_step):
    before = torch.get_num_threads()
    with pytest.raises(Killed):
        run(tmp_path, hook=kill_at(1, 3), threads=1)
    result = run(tmp_path, threads=2)
    assert "the checkpoint's 1 threads, not 2" in result.words[0]
    assert torch.get_num_threads() == before


def test_checkpoints_are_no_more_frequent_than_stated(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda *a: saved.append(a))
    monkeypatch.setattr(trainer, "CHECKPOINT_AFTER_S", 1e9)
    run(tmp_path)
    assert saved == []


def test_a_loss_that_is_no_number_names_epoch_step_and_rate(tmp_path):
    with pytest.raises(
        StockpotError,
        match=r"epoch \d, step \d: expected a finite loss, found (nan|inf) at lr 1e\+30",
    ) as caught:
        run(tmp_path, replace(BASE, lr=1e30, dropout=0.0, schedule="constant"))
    assert caught.value.fix == "--set train.lr=1e+29"


def test_outputs_without_labels_count_nowhere(tmp_path):
    with pytest.raises(BadInput, match="train split: expected labelled nodes, found none"):
        run(tmp_path, unlabelled=1.0, config={**CONFIG, "num_classes": 3})


def test_ingredients_share_their_start_and_differ_in_draws(tmp_path):
    zero, again, one = (
        run(tmp_path / str(k), replace(BASE, index=i)) for k, i in enumerate((0, 0, 1))
    )
    assert zero.init_digest == again.init_digest == one.init_digest
    assert same(zero, again)
    assert not same(zero, one)
    other = run(tmp_path / "seed", replace(BASE, seed=1))
    assert other.init_digest != zero.init_digest


def test_each_ingredient_draws_dropout_of_its_own(tmp_path):
    """One record an epoch, so that the order of steps, which differs by ingredient too, says
    nothing."""
    graph = community()
    pack = Pack(graph, np.arange(graph[0].shape[0]), per_record=graph[0].shape[0])

    def weights(**changes):
        params = replace(BASE, epochs=1, **changes)
        steps = pack.batches(layers=3, adj="norm")
        assert len(steps) == 1
        folder = tmp_path / "-".join(f"{k}{v}" for k, v in changes.items())
        folder.mkdir()
        result = trainer.train(
            params, {**CONFIG, "dropout": params.dropout}, steps, steps, folder, 1, lambda *_: None
        )
        return state_digest(result.model.state_dict())

    digests = [weights(index=0), weights(index=1), weights(index=2)]
    assert len(set(digests)) == 3
    assert weights(index=0, dropout=0.0) == weights(index=1, dropout=0.0)


@pytest.mark.parametrize("unlabelled", [0.0, 0.6])
def test_a_step_descends_the_mean_loss_of_its_labelled_outputs(unlabelled):
    step = packs(unlabelled=unlabelled)["train"].batches(layers=3, adj="norm")[0]
    known = step.y >= 0
    assert known.all() == (unlabelled == 0)
    model = build_model({**CONFIG, "dropout": 0.0}, seed=2)
    logits = model(step.x, step.adjs)
    mean = torch.nn.functional.cross_entropy(logits[known], step.y[known])
    expected = torch.autograd.grad(mean, list(model.parameters()))
    found = trainer._step(model, torch.optim.SGD(model.parameters(), lr=0.0), step, 0, 0, "fp32")
    assert found.labelled == known.sum()
    assert found.correct == (logits.argmax(1) == step.y)[known].sum()
    assert found.loss == pytest.approx(mean.item())
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


class TwoRanks(Team):
    """A rank of two, in this process: the other one adds nothing."""

    def total(self, score, *, flag=False):
        return score, flag

    def add_gradients(self, model):
        pass


def test_ranks_draw_dropout_of_their_own_by_step_and_alike_when_resumed():
    step = packs()["train"].batches(layers=3, adj="norm")[0]
    step = ShareStep(**vars(step), num_labelled=40)

    def drawn(rank=0, epoch=0, at=0, **changes):
        model = build_model(CONFIG, seed=0).train()
        model.generator = torch.Generator()
        adam = torch.optim.SGD(model.parameters(), lr=0.0)
        trainer._team_step(
            TwoRanks(rank, 2), replace(BASE, **changes), model, adam, step, epoch, at, due=False
        )
        return float(sum(p.grad.abs().sum() for p in model.parameters()))

    draws = [{}, {"rank": 1}, {"epoch": 1}, {"at": 1}, {"index": 1}]
    found = [drawn(**how) for how in draws]
    assert len(set(found)) == len(found)
    assert [drawn(**how) for how in draws] == found


def test_a_rank_divides_its_loss_by_the_labelled_outputs_of_all():
    step = packs(unlabelled=0.6)["train"].batches(layers=3, adj="norm")[0]
    model = build_model({**CONFIG, "dropout": 0.0}, seed=2)
    model.generator = torch.Generator()
    loss = (
        torch.nn.functional.cross_entropy(
            model(step.x, step.adjs), step.y, ignore_index=-1, reduction="sum"
        )
        / 40
    )
    expected = torch.autograd.grad(loss, list(model.parameters()))
    adam = torch.optim.SGD(model.parameters(), lr=0.0)
    shared = ShareStep(**vars(step), num_labelled=40)
    trainer._team_step(TwoRanks(1, 2), BASE, model, adam, shared, 0, 0, due=False)
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_scores_rank_by_accuracy_then_lower_loss_and_a_loss_that_is_no_number_loses():
    good, same, worse, lost = (
        Score(3, 4, 2.0),
        Score(3, 4, 3.0),
        Score(2, 4, 0.1),
        Score(3, 4, float("nan")),
    )
    assert worse.rank < lost.rank < same.rank < good.rank


def test_of_equal_epochs_the_first_is_kept(tmp_path):
    result = run(tmp_path, replace(BASE, lr=1e-30, weight_decay=0.0, schedule="constant"))
    assert len({row["valid_loss"] for row in result.history}) == 1
    assert result.best["epoch"] == 0


def test_early_stop_waits_for_its_patience(tmp_path):
    result = run(tmp_path, replace(BASE, epochs=60, patience=2, schedule="constant"))
    assert len(result.history) < 60
    assert len(result.history) - 1 - result.best["epoch"] == 2
    later = [row["valid_accuracy"] for row in result.history[result.best["epoch"] + 1 :]]
    assert max(later) <= result.best["accuracy"]


def test_cosine_ends_near_zero(tmp_path):
    rates = [row["lr"] for row in run(tmp_path, replace(BASE, epochs=20)).history]
    assert rates[0] == BASE.lr
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * BASE.lr


def test_only_matrices_decay():
    model = trainer.build_model(CONFIG, seed=0)
    groups = trainer._adam(model, replace(BASE, weight_decay=0.5)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert {p.dim() for p in groups[0]["params"]} == {2}
    assert {p.dim() for p in groups[1]["params"]} == {1}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_resolve():
    params = STAGE.resolve(RECIPE, {})
    assert (params.seed, params.index, params.per_step, params.normalization, params.mass) == (
        1,
        2,
        2,
        "rw",
        "row",
    )
    sage = STAGE.resolve({**RECIPE, "train.model": "sage"}, {})
    assert sage == STAGE.resolve(
        {**RECIPE, "train.model": "sage", "graph.normalization": "sym", "graph.mass": "none"}, {}
    )
    assert STAGE.resolve({**RECIPE, "train.device": "auto"}, {}).device in ("cpu", "cuda")
    assert set(STAGE.reads) == set(RECIPE) - {"index"}
    gat = STAGE.resolve({**RECIPE, "train.model": "gat"}, {})
    assert (gat.heads, gat.self_loops, gat.normalization) == (4, True, "none")
    assert gat != STAGE.resolve({**RECIPE, "train.model": "gat", "graph.self_loops": False}, {})
    for name in ("gcn", "sage", "gin"):  # heads are none of their business
        one = {**RECIPE, "train.model": name}
        assert STAGE.resolve(one, {}) == STAGE.resolve({**one, "train.heads": 8}, {})
    assert set(NAMES) == set(MODELS)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "model",
            "mlp",
            (
                "train.model: expected gcn, sage, gat, gin, sage-lstm, sgc, sign or "
                "package.module:factory, found 'mlp'"
            ),
        ),
        (
            "model",
            "no_such_pkg.mod:make",
            "'no_such_pkg.mod:make': expected a module no_such_pkg.mod with a source",
        ),
        (
            "model",
            "pkg/mod:make",
            "train.model: expected package.module:factory, found 'pkg/mod:make'",
        ),
        ("device", "tpu", "train.device: expected auto, cpu, cuda or cuda:N"),
        ("device", "cpu:1", "train.device: expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_values_outside_their_range_are_refused(key, value, words):
    with pytest.raises(BadInput, match=words):
        STAGE.resolve({**RECIPE, f"train.{key}": value}, {})


PRODUCTS = {
    "hops": 2,
    "adj": "norm",
    "normalization": "sym",
    "self_loops": True,
    "own_columns": 5,
}
STORED = {
    **RECIPE,
    "graph.normalization": "sym",
    "graph.self_loops": True,
    "train.model": "gcn",
    "train.layers": 2,
}


@pytest.mark.parametrize(
    ("changes", "found", "stored"),
    [
        ({}, {}, 2),
        ({"graph.normalization": "rw"}, {}, 0),
        ({"graph.self_loops": False}, {}, 0),
        ({"train.layers": 1}, {}, 0),
        ({}, {"adj": "mean"}, 0),
        ({"train.model": "sage"}, {}, 0),
        ({"train.model": "sage"}, {"adj": "mean"}, 2),
        ({"train.model": "gat"}, {"adj": "mean"}, 0),
        ({"train.model": "gin"}, {"adj": "mean"}, 0),
    ],
)
def test_a_first_layer_is_stored_where_the_products_are_its_own(changes, found, stored):
    packed = {"propagated": PRODUCTS | found, "num_features": 15, "num_classes": 3}
    recipe = {**STORED, **changes}
    params = STAGE.resolve(recipe, {"train": packed})
    assert params.stored == stored
    config = model_config(params, packed)
    assert config["layers"] == params.layers - bool(stored)
    assert config.get("stored", 0) == stored
    assert STAGE.resolve(recipe, {}).stored == 0


def test_sampled_layers_are_those_that_read_edges():
    recipe = {**STORED, "train.layers": 3}
    sampled = {"sampling": {"fanouts": [5, 5]}}
    with pytest.raises(BadInput, match="expected 3, one for each layer of the model, found"):
        STAGE.resolve(recipe, {"train": sampled})
    assert STAGE.resolve(recipe, {"train": sampled | {"propagated": PRODUCTS}}).stored == 2
    with pytest.raises(
        BadInput, match="expected 3, one for each layer of the model that reads edges, found"
    ) as error:
        STAGE.resolve({**recipe, "train.layers": 4}, {"train": sampled | {"propagated": PRODUCTS}})
    assert "train.layers=3" in error.value.fix


def test_the_stage_writes_model_history_and_facts(tmp_path):
    data = packs()
    inputs = {
        "train": data["train"],
        "valid": data["valid"],
        "order": MemoryReader(digest="5" * 32),
    }
    params = replace(BASE, index=3, epochs=4)
    found = run_stage(STAGE, params, inputs, tmp_path)
    history = json.loads(found.path("history.json").read_text())
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert found.facts["epochs"] == 4
    assert found.facts["seed"] == 3
    assert found.facts["valid_accuracy"] == max(row["valid_accuracy"] for row in history)
    model = load_model(found.path("model.safetensors"))
    assert found.facts["num_parameters"] == sum(p.numel() for p in model.parameters())
    assert model.config["normalization"] == "sym"
    direct = run(tmp_path / "direct", params)
    assert state_digest(direct.model.state_dict()) == state_digest(model.state_dict())


def test_projected_memory_grows_with_the_step():
    facts = {role: data.facts for role, data in packs().items()}
    small, large = STAGE.cost(BASE, facts), STAGE.cost(replace(BASE, per_step=4, hidden=64), facts)
    assert small.read > 0
    assert 0 < small.written < large.written
    assert small.peak < large.peak


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 1])
@pytest.mark.parametrize(("trained", "rounds"), [(100, 1), (100, 4), (3, 1), (0, 1)])
def test_validation_is_at_most_its_share_of_the_row_passes(share, trained, rounds):
    """The fewest epochs between two validations that keep the share, counted."""
    facts = {"train": {"records": 4, "rows": trained * rounds, "rounds": rounds}}
    facts["valid"] = {"rows": 250}
    epochs = 10**6
    params = STAGE.resolve({**RECIPE, "train.validate": share, "train.epochs": epochs}, facts)
    every, rows = params.validate_every, max(1, trained)
    assert 250 / (every * rows + 250) <= share
    assert every == 1 or 250 / ((every - 1) * rows + 250) > share
    short = STAGE.resolve({**RECIPE, "train.validate": share, "train.epochs": 5}, facts)
    assert short.validate_every == min(every, 5)


def test_validate_auto_leaves_validations_enough_and_old_keys_as_they_were():
    facts = {"train": {"records": 4, "rows": 100}, "valid": {"rows": 100}}

    def every(valid, **changes):
        recipe = {**RECIPE, "train.epochs": 200, "train.patience": 30, **changes}
        return STAGE.resolve(recipe, {**facts, "valid": {"rows": valid}}).validate_every

    assert [every(v) for v in (50, 100, 200, 500, 10**6)] == [1, 1, 2, 5, 6]  # a fifth of 30
    assert every(10**6, **{"train.patience": 100}) == 20  # a tenth of 200
    assert every(10**6, **{"train.patience": 4}) == 1
    assert every(10**6, **{"train.patience": 100, "train.warmup": 150}) == 5
    common = STAGE.resolve(RECIPE, facts)
    assert common == STAGE.resolve({**RECIPE, "train.validate": 1}, facts)
    assert common.validate_every == Params.__dataclass_fields__["validate_every"].metadata[OFF]


@pytest.mark.parametrize(
    ("packed", "per_step", "epochs", "patience"),
    [
        ({"records": 64}, 1, 200, 30),
        ({"records": 5}, 1, 300, 30),
        ({"records": 1}, 1, 1500, 150),
        ({"records": 4, "rounds": 2}, 1, 750, 75),
        ({"records": 64}, 32, 750, 75),
    ],
)
def test_few_steps_an_epoch_make_more_epochs(packed, per_step, epochs, patience):
    auto = {**RECIPE, "train.epochs": "auto", "train.patience": "auto", "train.per_step": per_step}
    found = STAGE.resolve(auto, {"train": packed})
    assert (found.epochs, found.patience) == (epochs, patience)


TAIL = replace(BASE, lr=0.05, schedule="constant", epochs=8, keep="last", tail=3, tail_every=2)
"""Models of epochs 3, 5 and 7."""


def alike(mine, theirs):
    return len(mine) == len(theirs) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(mine, theirs, strict=True)
    )


def test_a_tail_is_what_shorter_trainings_end_with(tmp_path):
    """At a constant rate a training of e epochs is the first e of a longer one."""
    found = run(tmp_path / "tail", TAIL)
    assert TAIL.tail_epochs == (3, 5, 7)
    ends = [
        run(tmp_path / str(epoch), replace(TAIL, epochs=epoch + 1, tail=0)).model.state_dict()
        for epoch in TAIL.tail_epochs
    ]
    assert alike(found.tail, ends)
    assert not alike(found.tail[:1], found.tail[1:2])
    plain = run(tmp_path / "plain", replace(TAIL, tail=0, tail_every=0))
    assert same(found, plain)  # nothing else changes
    assert plain.tail == []


def test_models_of_a_tail_are_averages_where_weights_are_averaged(tmp_path):
    params = replace(TAIL, ema=0.7, validate_every=4)
    found = run(tmp_path / "tail", params)
    ends = [
        run(tmp_path / str(epoch), replace(params, epochs=epoch + 1, tail=0)).model.state_dict()
        for epoch in params.tail_epochs
    ]
    assert alike(found.tail, ends)
    assert all("valid_accuracy" in found.history[epoch] for epoch in (3, 5, 7))
    assert all("valid_accuracy" not in found.history[epoch] for epoch in (0, 1, 2, 4, 6))


@pytest.mark.parametrize(("epoch", "step"), [(2, 4), (4, 0), (5, 3), (6, 1), (7, 5)])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_training_killed_in_its_tail_resumes_bit_by_bit(tmp_path, every_step, epoch, step, ema):
    params = replace(TAIL, ema=ema)
    whole = run(tmp_path / "whole", params)
    with pytest.raises(Killed):
        run(tmp_path / "cut", params, kill_at(epoch, step))
    again = run(tmp_path / "cut", params)
    assert same(again, whole)
    assert alike(again.tail, whole.tail)


def test_a_tail_cut_by_a_damaged_checkpoint_is_trained_again(tmp_path, every_step):
    """The previous checkpoint has what the tail had then; the rest is made anew, to the same
    weights."""
    whole = run(tmp_path / "whole", TAIL)
    with pytest.raises(Killed):
        run(tmp_path / "cut", TAIL, kill_at(6, 2))
    newest = tmp_path / "cut" / checkpoint.NEWEST
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    again = run(tmp_path / "cut", TAIL)
    assert any("set aside" in word for word in again.words)
    assert alike(again.tail, whole.tail)


def test_the_artifact_of_a_tail_has_a_file_for_each_model(tmp_path):
    data = packs()
    inputs = {
        "train": data["train"],
        "valid": data["valid"],
        "order": MemoryReader(digest="5" * 32),
    }
    found = run_stage(STAGE, TAIL, inputs, tmp_path)
    assert not found.has("model.safetensors")
    rows = json.loads(found.path("history.json").read_text())
    adj = build_model({**CONFIG, "model": "gcn"}).adj
    valid = data["valid"].batches(layers=3, adj=adj, shuffle=False)
    trained = MemoryReader(facts=found.facts, root=tmp_path)
    every = ingredients({"valid": inputs["valid"], "ingredient:0": trained})
    assert [one.name for one in every] == ["ingredient:0", "ingredient:1", "ingredient:2"]
    assert [one.facts["epoch"] for one in every] == [3, 5, 7]
    for one in every:
        row = rows[one.facts["epoch"]]
        score = evaluate(load_model(one.path), valid)
        said = read_metadata(one.path)
        assert score.accuracy == row["valid_accuracy"] == one.facts["valid_accuracy"]
        assert score.accuracy == said["valid_accuracy"]
        assert said["epoch"] == one.facts["epoch"]
        assert said["inputs"] == {role: reader.digest for role, reader in inputs.items()}
    best = max((one.facts for one in every), key=lambda f: (f["valid_accuracy"], -f["valid_loss"]))
    assert found.facts["valid_accuracy"] == best["valid_accuracy"]
    assert found.facts["best_epoch"] == best["epoch"]
    assert found.facts["epochs"] == 8
    several = {"ingredient:1": trained, "ingredient:0": MemoryReader(facts={"seed": 4})}
    assert [one.file for one in ingredients(several)][:2] == [
        "model.safetensors",
        "model-00.safetensors",
    ]
    assert count({role: reader.facts for role, reader in several.items()}) == 4


@pytest.mark.parametrize("warmup", [0, 3, 12, 40])
@pytest.mark.parametrize("epochs", [2, 3, 5, 8, 20, 44, 200, 1500])
def test_a_tail_is_the_last_share_of_the_epochs_evenly_spaced(epochs, warmup):
    recipe = {**RECIPE, "train.ingredients": "tail", "train.epochs": epochs}
    recipe["train.warmup"] = warmup
    facts = {"train": {"records": 4}}
    if warmup > epochs - 2:
        with pytest.raises(BadInput, match=r"train\.(ingredients|warmup): "):
            STAGE.resolve(recipe, facts)
        return
    params = STAGE.resolve(recipe, facts)
    kept = params.tail_epochs
    assert kept[-1] == epochs - 1
    assert 2 <= len(kept) <= TAIL_MODELS
    assert {b - a for a, b in pairwise(kept)} == {params.tail_every}
    first = kept[0] - params.tail_every + 1  # of the epochs that the tail spans
    assert first >= warmup
    assert epochs - first <= max(2, TAIL_SHARE * epochs)
    assert params.keep == "last"


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (9, 8)])
def test_a_tail_of_one_epoch_is_refused(epochs, warmup):
    recipe = {**RECIPE, "train.ingredients": "tail", "train.epochs": epochs}
    with pytest.raises(BadInput, match=r"train\.ingredients: a tail is two epochs") as refused:
        STAGE.resolve({**recipe, "train.warmup": warmup}, {"train": {"records": 4}})
    assert refused.value.fix == f"--set train.epochs={warmup + 2}"


def test_only_a_tail_changes_the_parameters_of_a_training():
    """The number of separate ingredients stands in none of them."""
    facts = {"train": {"records": 4}}
    common = STAGE.resolve(RECIPE, facts)
    assert common == STAGE.resolve({**RECIPE, "train.ingredients": 50}, facts)
    assert (common.tail, common.tail_every) == (0, 0)
    for name in ("tail", "tail_every"):
        assert Params.__dataclass_fields__[name].metadata[OFF] == 0
