"""Ranks train by the trainer's own step what one process trains, and a training that was ended goes
on as it was."""

from dataclasses import asdict, replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stockpot.planning.recipe import load
from stockpot.stages.processes.process_group import led
from stockpot.stages.train import STAGE
from stockpot.stages.train.trainer import _team_step
from tests.coop_ranks import trainings
from tests.graphs import community_arrays
from tests.runs import run_here

RANKS = 3
CUTS = {"cooperative": [(0, 1), (2, 0)], "independent": [(1, 1)]}
"""By mode of exchange, the (epoch, step) that trainings are ended at."""
RECIPE = """
[dataset]
source = "npz:{npz}"
[features]
codec = "fp32"
propagate = {hops}
[partition]
method = "stream"
parts = 8
[batches]
method = "{method}"
outputs = 24
top_k = 4
mix = 2
[hag]
enabled = "never"
[train]
model = "{model}"
layers = 2
hidden = 8
dropout = 0.0
lr = 1e-2
weight_decay = 0.1
schedule = "plateau"
per_step = 4
epochs = 3
ranks = {ranks}
device = "cpu"
"""


def prepared(folder, hops=0, model="gcn", method="node"):
    """(parameters, inputs by role) of trainings on a weighted graph, partly labelled."""
    rng = np.random.default_rng(0)
    arrays = community_arrays(260, degree=7, features=6, seed=1)
    arrays["y"][rng.random(260) < 0.3] = -1
    parts = np.split(rng.permutation(260), [130, 220])
    arrays |= {
        f"{name}_idx": np.sort(ids)
        for name, ids in zip(("train", "valid", "test"), parts, strict=True)
    }
    np.savez(
        folder / "graph.npz",
        **arrays,
        edge_weight=rng.uniform(0.3, 3, arrays["edge_index"].shape[1]),
    )
    recipe = folder / "tiny.toml"
    recipe.write_text(
        RECIPE.format(npz=folder / "graph.npz", ranks=RANKS, hops=hops, model=model, method=method)
    )
    artifacts = run_here(recipe, folder, ["order", "pack", "exchange"])
    roles = {"train": "pack:train", "valid": "pack:valid", "order": "order", "exchange": "exchange"}
    inputs = {role: artifacts[node] for role, node in roles.items()}
    facts = {role: reader.facts for role, reader in inputs.items()}
    assert 0 < facts["train"]["records"] % 4 < RANKS  # a last step of fewer records than ranks
    assert facts["valid"]["records"] % RANKS  # which not every rank has one of
    return STAGE.resolve({**load(recipe).values(), "index": 0}, facts), inputs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Name -> (weights, history) of trainings of three ranks and of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    params, inputs = prepared(folder)
    jobs = {}
    for mode, cuts in CUTS.items():
        jobs[mode] = {"params": asdict(replace(params, exchange=mode))}
        drops = asdict(replace(params, exchange=mode, dropout=0.5, index=1))
        jobs[f"{mode} whole"] = {"params": drops}
        for at in cuts:
            jobs[f"{mode} cut {at}"] = {"params": drops, "cut": at}
    warm = replace(params, exchange="cooperative", warmup=1)
    jobs["warm"] = {"params": asdict(warm), "warmup": True}
    with led(
        RANKS, trainings, inputs, device="cpu", folder=str(folder / "work"), jobs=jobs
    ) as team:
        found = trainings(team, inputs=inputs, folder=str(folder / "work"), jobs=jobs)
    one = {"alone": {"params": asdict(replace(params, ranks=1))}}
    one["alone warm"] = {"params": asdict(replace(warm, ranks=1)), "warmup": True}
    return found | trainings(None, inputs=inputs, folder=str(folder / "work"), jobs=one)


@pytest.mark.parametrize(
    ("shared", "alone"), [*((mode, "alone") for mode in CUTS), ("warm", "alone warm")]
)
def test_ranks_end_with_the_weights_of_one_process(trained, shared, alone):
    same(trained[shared], trained[alone], [*range("warm" in shared, 3)])


def same(found, other, epochs):
    """Weights and history of ranks and of one process agree but for rounding."""
    (weights, history), (expected, rows) = found, other
    assert [row["epoch"] for row in history] == [row["epoch"] for row in rows] == epochs
    for row, one in zip(history, rows, strict=True):
        assert row == pytest.approx(one, rel=1e-5)
    assert any(row["valid_accuracy"] not in (0, 1) for row in rows)
    for name, values in weights.items():
        torch.testing.assert_close(
            values, expected[name], rtol=0, atol=1e-6, msg=lambda said, at=name: f"{at}: {said}"
        )


def same_by_ranks(tmp_path, params, inputs):
    """Ranks of either kind train as one process does; the weights it ends with."""
    work = {"inputs": inputs, "folder": str(tmp_path / "work")}
    jobs = {mode: {"params": asdict(replace(params, exchange=mode, epochs=2))} for mode in CUTS}
    with led(RANKS, trainings, inputs, device="cpu", folder=work["folder"], jobs=jobs) as team:
        ranks = trainings(team, **work, jobs=jobs)
    one = trainings(
        None, **work, jobs={"alone": {"params": asdict(replace(params, ranks=1, epochs=2))}}
    )
    for mode in CUTS:
        same(ranks[mode], one["alone"], [0, 1])
    return one["alone"][0]


def test_ranks_train_a_first_layer_whose_aggregation_is_stored(tmp_path):
    params, inputs = prepared(tmp_path, hops=2)
    assert params.stored == 2
    weights = same_by_ranks(tmp_path, params, inputs)
    assert any(name.startswith("stored.conv") for name in weights)


@pytest.mark.parametrize(
    ("model", "method"), [("sign", "propagate"), ("sgc", "propagate"), ("sign", "labor")]
)
def test_ranks_train_models_of_rows(tmp_path, model, method):
    """On records without edges, and on sampled ones, of which outputs alone are read."""
    params, inputs = prepared(tmp_path, 2, model, method)
    assert params.hops == 2
    same_by_ranks(tmp_path, params, inputs)


@pytest.mark.parametrize(
    ("mode", "at"), [(mode, at) for mode, places in CUTS.items() for at in places]
)
def test_ranks_that_were_ended_go_on_bit_by_bit(trained, mode, at):
    weights, history = trained[f"{mode} cut {at}"]
    expected, rows = trained[f"{mode} whole"]
    assert history == rows
    assert all(torch.equal(values, expected[name]) for name, values in weights.items())
    assert history != trained[mode][1]


def test_dropout_is_drawn_apart_by_rank_step_epoch_and_ingredient():
    """The seeds are watched, in the trainer's own step: no loss tells shared masks from others."""

    def seed(rank, epoch, index, ingredient):
        model = torch.nn.Linear(3, 2)
        model.generator = torch.Generator()
        team = SimpleNamespace(
            rank=rank,
            size=RANKS,
            forward=lambda model, step: model(step.x),
            total=lambda score, *, flag: (score, flag),
            add_gradients=lambda model: None,
        )
        params = SimpleNamespace(seed=5, index=ingredient, precision="fp32")
        step = SimpleNamespace(x=torch.ones(4, 3), y=torch.tensor([0, 1, 1, -1]), num_labelled=3)
        adam = torch.optim.Adam(model.parameters())
        _team_step(team, params, model, adam, step, epoch, index, due=False)
        return model.generator.initial_seed()

    places = list(product(range(3), range(2), range(2), range(2)))
    seeds = [seed(*place) for place in places]
    assert len(set(seeds)) == len(places)
    assert seeds == [seed(*place) for place in places]
