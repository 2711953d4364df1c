import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import BadInput, Conflict
from stages.soup import STAGE
from stages.soup.alike import check_alike
from stages.soup.average import Average, greedy, uniform
from stages.soup.stage import Params
from stages.train import STAGE as TRAIN
from stages.train.evaluate import evaluate
from stages.train.model import build_model, load_model, save_model
from stages.train.state import read_state, state_digest
from tests.memory import MemoryReader, run_stage
from tests.stages.steps import packs
from tests.stages.test_train import BASE, CONFIG

READ = {"normalization": "sym", "mass": "none", "self_loops": True}


def states(count, seed=0, equal=False):
    draw = torch.Generator().manual_seed(seed)
    made = [{"a": torch.randn(5, 3, generator=draw), "b": torch.randn(3, generator=draw)} for _ in range(count)]
    return [made[0]] * count if equal else made


def trained(root, data, count, **changes):
    """Readers of `count` ingredients, really trained."""
    from dataclasses import replace

    inputs = {"train": data["train"], "valid": data["valid"], "order": MemoryReader()}
    params = [replace(BASE, epochs=6, index=i, **changes) for i in range(count)]
    return {f"ingredient:{i}": run_stage(TRAIN, p, inputs, root / f"{i}") for i, p in enumerate(params)}


def untrained(root, seeds, init="start", inputs=None, **changes):
    """Readers of ingredients with random weights that claim one start."""
    readers = {}
    for i, seed in enumerate(seeds):
        (root / str(i)).mkdir(parents=True, exist_ok=True)
        model = build_model({**CONFIG, **READ, **changes}, seed=seed)
        save_model(root / str(i) / "model.safetensors", model, {"init_digest": init, "inputs": inputs or {}})
        readers[f"ingredient:{i}"] = MemoryReader(facts={"num_parameters": 100}, root=root / str(i))
    return readers


@pytest.fixture(scope="module")
def data():
    return packs()


@given(st.integers(1, 8), st.integers(0, 50))
def test_a_soup_of_one_ingredient_many_times_is_that_ingredient(count, seed):
    made = states(count, seed, equal=True)
    soup = uniform(made.__getitem__, range(count))
    assert all(torch.equal(soup[k], made[0][k]) for k in soup)


def test_uniform_is_the_mean_by_name_not_by_position():
    made = states(3)
    turned = [dict(reversed(s.items())) for s in made]
    mixed = [made[0], turned[1], made[2]]
    soup = uniform(mixed.__getitem__, range(3))
    for name in ("a", "b"):
        expected = torch.stack([s[name].double() for s in made]).mean(0)
        torch.testing.assert_close(soup[name].double(), expected, rtol=1e-7, atol=1e-8)
        assert soup[name].dtype == torch.float32


def test_an_average_leaves_its_ingredients_alone():
    made = states(2)
    kept = [{k: v.clone() for k, v in s.items()} for s in made]
    average = Average()
    for s in made:
        average.add(s)
    average.mean(made[0])
    assert all(torch.equal(s[k], c[k]) for s, c in zip(made, kept, strict=True) for k in s)
    assert torch.equal(average.mean()["a"], uniform(made.__getitem__, range(2))["a"])


def test_greedy_takes_what_raises_accuracy_and_nothing_else():
    made = states(4)
    target = (made[2]["a"] + made[0]["a"]) / 2

    def accuracy(state):
        return -float((state["a"] - target).abs().max())

    order = sorted(range(4), key=lambda i: accuracy(made[i]), reverse=True)
    soup, members = greedy(made.__getitem__, order, accuracy(made[order[0]]), accuracy)
    # The same by hand.
    taken, best = [order[0]], accuracy(made[order[0]])
    for i in order[1:]:
        trial = {"a": sum(made[j]["a"].double() for j in [*taken, i]) / (len(taken) + 1)}
        if accuracy(trial) > best + 1e-12:
            taken, best = [*taken, i], accuracy(trial)
    assert members == taken
    assert accuracy(soup) >= max(accuracy(s) for s in made)


def test_greedy_keeps_the_best_alone_where_nothing_helps():
    made = states(3)
    soup, members = greedy(made.__getitem__, [1, 0, 2], 0.9, lambda _: 0.9)
    assert members == [1]
    assert torch.equal(soup["a"], made[1]["a"])


def test_auto_is_never_worse_than_the_best_single_and_scores_are_real(tmp_path, data):
    singles = trained(tmp_path / "train", data, 3)
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    methods = found.facts["methods"]
    assert list(methods) == ["best", "uniform", "greedy"]
    accuracies = {name: m["valid_accuracy"] for name, m in methods.items()}
    best = max(r.facts["valid_accuracy"] for r in singles.values())
    assert accuracies["best"] == best
    assert accuracies["greedy"] >= best
    assert accuracies[found.facts["chosen"]] == max(accuracies.values())
    assert [s["valid_accuracy"] for s in found.facts["ingredients"]] == [
        r.facts["valid_accuracy"] for r in singles.values()
    ]
    steps = data["valid"].batches(layers=3, adj="norm", shuffle=False)
    for name, method in methods.items():
        model = load_model(found.path(f"soup-{name}.safetensors"))
        assert evaluate(model, steps).accuracy == method["valid_accuracy"]
    chosen = read_state(found.path("chosen.safetensors"))
    assert chosen[1]["method"] == found.facts["chosen"]
    assert state_digest(chosen[0]) == state_digest(
        read_state(found.path(f"soup-{found.facts['chosen']}.safetensors"))[0]
    )
    json.dumps(dict(found.facts))


def test_ingredients_of_another_basin_leave_the_best_single(tmp_path, data):
    singles = untrained(tmp_path / "a", [1, 2, 3])
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    methods = found.facts["methods"]
    assert methods[found.facts["chosen"]]["valid_accuracy"] >= methods["best"]["valid_accuracy"]


def test_one_ingredient_is_its_own_soup(tmp_path, data):
    singles = trained(tmp_path / "train", data, 1)
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    assert found.facts["chosen"] == "best"  # a tie goes to the simplest
    mine = load_model(singles["ingredient:0"].path("model.safetensors")).state_dict()
    for name in ("best", "uniform", "greedy"):
        soup = load_model(found.path(f"soup-{name}.safetensors")).state_dict()
        assert all(torch.equal(mine[k], soup[k]) for k in mine)


@pytest.mark.parametrize("method", ["best", "uniform", "greedy"])
def test_a_method_asked_for_is_chosen(tmp_path, data, method):
    singles = untrained(tmp_path / "a", [4, 5])
    found = run_stage(STAGE, Params(method), {"valid": data["valid"], **singles}, tmp_path / "soup")
    assert found.facts["chosen"] == method
    assert set(found.facts["methods"]) == {"best", method}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            {"init": "elsewhere"},
            r"0 \(.*a/0/model.safetensors\) and .* 1 \(.*b/0/model.safetensors\) differ in init_digest: start against",
        ),
        ({"hidden": 12}, "differ in config: hidden 16 against 12; a soup needs one architecture"),
        ({"inputs": {"train": "other"}}, "differ in inputs: train one against other"),
    ],
)
def test_ingredients_that_do_not_belong_together_are_refused(tmp_path, data, second, words):
    singles = untrained(tmp_path / "a", [0], inputs={"train": "one"})
    singles["ingredient:1"] = untrained(tmp_path / "b", [1], **second)["ingredient:0"]
    with pytest.raises(Conflict, match=words):
        run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")


def test_ingredients_may_differ_in_what_they_are_trained_with(tmp_path, data):
    singles = untrained(tmp_path / "a", [0])
    singles["ingredient:1"] = untrained(tmp_path / "b", [1], dropout=0.1, lr=3.0)["ingredient:0"]
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    assert found.facts["methods"]["uniform"]


def test_what_models_of_elsewhere_do_not_say_is_not_compared():
    mine = {"config": {"hidden": 4}, "init_digest": "a", "inputs": {"train": "x"}}
    other = {"config": {"hidden": 4, "lr": 1.0}}
    assert check_alike([mine, mine], "ab") == []
    assert check_alike([mine, other, mine], "abc") == [
        "1 of 3 ingredients do not say their start: not compared",
        "1 of 3 ingredients do not say their training records: not compared",
    ]
    with pytest.raises(Conflict, match="a and c differ in init_digest: a against z"):
        check_alike([mine, other, {**mine, "init_digest": "z"}], "abc")


def test_a_validation_split_without_labels_is_refused(tmp_path):
    blind = packs(unlabelled=1.0)["valid"]
    blind.facts["num_classes"] = 3
    with pytest.raises(BadInput, match="valid split: expected labelled nodes"):
        run_stage(STAGE, Params("auto"), {"valid": blind, **untrained(tmp_path / "a", [0])}, tmp_path / "soup")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"soup.method": "gis", "soup.holdout": 0.0},
            "'gis' is not available in this version; expected auto, best, uniform",
        ),
        ({"soup.method": "learned", "soup.holdout": 0.0}, "'learned' is not available"),
        ({"soup.method": "partition", "soup.holdout": 0.0}, "'partition' is not available"),
        (
            {"soup.method": "bset", "soup.holdout": 0.0},
            "soup.method: expected auto, best, uniform, greedy, found 'bset'",
        ),
        ({"soup.method": "auto", "soup.holdout": 0.5}, "soup.holdout: .* expected 0, found 0.5"),
    ],
)
def test_what_is_not_built_is_refused_by_name(values, words):
    with pytest.raises(BadInput, match=words):
        STAGE.resolve(values, {})
    assert STAGE.resolve({"soup.method": "auto", "soup.holdout": 0.0, "train.device": "cpu"}, {}) == Params("auto")


def test_more_than_ten_ingredients_stand_in_the_order_of_their_numbers():
    from stages.soup.stage import ingredients

    roles = ["valid", *(f"ingredient:{i}" for i in np.random.default_rng(0).permutation(12))]
    assert ingredients(dict.fromkeys(roles)) == [f"ingredient:{i}" for i in range(12)]


def test_projection_grows_with_the_number_of_ingredients(data):
    facts = {"valid": data["valid"].facts, "ingredient:0": {"num_parameters": 1000, "hidden": 16}}
    more = {**facts, "ingredient:1": facts["ingredient:0"]}
    assert STAGE.cost(Params("auto"), facts).read < STAGE.cost(Params("auto"), more).read
    assert STAGE.cost(Params("auto"), facts).peak == STAGE.cost(Params("auto"), more).peak  # streamed
