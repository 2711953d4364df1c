import json

import numpy as np
import pytest
import torch

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.soup import STAGE
from stockpot.stages.soup import cross_fit as kitchen
from stockpot.stages.soup.calibrate import recalibrate
from stockpot.stages.soup.compatibility import check_alike
from stockpot.stages.soup.planning import METHODS
from stockpot.stages.soup.published import SgdParams
from stockpot.stages.soup.stage import Params
from stockpot.stages.train import STAGE as TRAIN
from stockpot.stages.train.evaluate import evaluate
from stockpot.stages.train.holdout import Outputs, held_out
from stockpot.stages.train.ingredient import roles
from stockpot.stages.train.model import build_model, load_model, save_model
from stockpot.stages.train.state import read_state, state_digest, write_state
from tests.memory import MemoryReader, run_stage
from tests.stages.steps import packs
from tests.stages.train.test_train import BASE, CONFIG

DEFAULTS = {
    "soup.method": "auto",
    "soup.holdout": 0.0,
    "soup.epochs": "auto",
    "soup.rate": "auto",
    "soup.period": 4,
    "soup.parts": 32,
    "soup.drawn": 4,
    "train.device": "cpu",
}
READ = {"normalization": "sym", "mass": "none", "self_loops": True}


def trained(root, data, count, **changes):
    """Readers of `count` ingredients, really trained."""
    from dataclasses import replace

    inputs = {"train": data["train"], "valid": data["valid"], "order": MemoryReader()}
    params = [replace(BASE, epochs=6, index=i, **changes) for i in range(count)]
    return {
        f"ingredient:{i}": run_stage(TRAIN, p, inputs, root / f"{i}") for i, p in enumerate(params)
    }


def untrained(root, seeds, init="start", inputs=None, **changes):
    """Readers of ingredients with random weights that claim one start."""
    readers = {}
    for i, seed in enumerate(seeds):
        (root / str(i)).mkdir(parents=True, exist_ok=True)
        model = build_model({**CONFIG, **READ, **changes}, seed=seed)
        save_model(
            root / str(i) / "model.safetensors",
            model,
            {"init_digest": init, "inputs": inputs or {}},
        )
        readers[f"ingredient:{i}"] = MemoryReader(facts={"num_parameters": 100}, root=root / str(i))
    return readers


@pytest.fixture(scope="module")
def data():
    return packs()


def test_auto_is_never_worse_than_the_best_single_and_scores_are_real(tmp_path):
    data = packs(nodes=480)
    singles = trained(tmp_path / "train", data, 3)
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    facts = found.facts
    methods = facts["methods"]
    assert list(methods) == list(METHODS[:6])
    assert methods[facts["chosen"]]["valid_accuracy"] >= methods["best"]["valid_accuracy"]
    assert [s["valid_accuracy"] for s in facts["ingredients"]] == [
        r.facts["valid_accuracy"] for r in singles.values()
    ]
    best = max(
        range(3),
        key=lambda i: (
            facts["ingredients"][i]["valid_accuracy"],
            -facts["ingredients"][i]["valid_loss"],
        ),
    )
    assert methods["best"]["members"] == [best]
    # The soup itself is never less accurate than the best ingredient on what they were chosen by.
    assert methods[facts["chosen"]]["valid_accuracy"] >= max(
        s["valid_accuracy"] for s in facts["ingredients"]
    )
    steps = data["valid"].batches(layers=3, adj="norm", shuffle=False).steps
    assert facts["parts"]["divided"]
    assert sum(facts["parts"]["labelled"]) == facts["labelled"]
    assert sum(facts["parts"]["records"]) == len(steps)
    for name, method in methods.items():
        model = load_model(found.path(f"soup-{name}.safetensors"))
        assert evaluate(model, steps).accuracy == method["valid_accuracy"]
    chosen = read_state(found.path("chosen.safetensors"))
    assert chosen[1]["method"] == facts["chosen"]
    assert state_digest(chosen[0]) == state_digest(
        read_state(found.path(f"soup-{facts['chosen']}.safetensors"))[0]
    )
    json.dumps(dict(facts))


def test_held_out_outputs_are_seen_by_soups_alone(tmp_path):
    data = packs(nodes=480)
    singles = trained(tmp_path / "train", data, 2, holdout=0.5)
    seen = [r.facts["valid_accuracy"] for r in singles.values()]
    found = run_stage(
        STAGE, Params("auto", holdout=0.5), {"valid": data["valid"], **singles}, tmp_path / "soup"
    )
    ids = np.arange(data["valid"].facts["outputs"])
    held = held_out(ids, 0.5)
    labelled = data["valid"].graph[2][data["valid"].outputs] >= 0
    assert found.facts["labelled"] == int((held & labelled).sum())
    steps = data["valid"].batches(layers=3, adj="norm", shuffle=False)
    for i, accuracy in enumerate(seen):
        model = load_model(singles[f"ingredient:{i}"].path("model.safetensors"))
        assert evaluate(model, Outputs(steps, 0.5, held=False)).accuracy == accuracy
        mine = evaluate(model, Outputs(steps, 0.5, held=True))
        assert mine.accuracy == pytest.approx(found.facts["ingredients"][i]["valid_accuracy"])
        whole = evaluate(model, steps)
        assert (
            mine.labelled + evaluate(model, Outputs(steps, 0.5, held=False)).labelled
            == whole.labelled
        )


def test_of_the_outputs_each_side_sees_its_own():
    steps = packs(nodes=480)["valid"].batches(layers=3, adj="norm", shuffle=False)
    for held in (False, True):
        for one, whole in zip(Outputs(steps, 0.3, held=held), steps, strict=True):
            mine = held_out(whole.input_id.numpy(), 0.3) == held
            assert one.y.tolist() == np.where(mine, whole.y.numpy(), -1).tolist()


def test_a_share_held_out_is_that_share():
    for share in (0.0, 0.1, 0.5, 0.9):
        assert held_out(np.arange(20_000), share).mean() == pytest.approx(share, abs=0.02)


def test_ingredients_of_another_basin_leave_the_best_single(tmp_path, data):
    singles = untrained(tmp_path / "a", [1, 2, 3])
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    methods = found.facts["methods"]
    assert methods[found.facts["chosen"]]["valid_accuracy"] >= methods["best"]["valid_accuracy"]


def test_nothing_is_learned_on_ingredients_that_drifted_apart(tmp_path):
    data = packs(nodes=480)
    singles = trained(tmp_path / "a", data, 1)
    # The same function in another basin: its hidden units stand in another order.
    state, metadata = read_state(singles["ingredient:0"].path("model.safetensors"))
    order = torch.roll(torch.arange(16), 5)
    for name in ("convs.0.lin.weight", "convs.0.bias", "norms.0.weight", "norms.0.bias"):
        state[name] = state[name][order]
    state["convs.1.lin.weight"] = state["convs.1.lin.weight"][:, order]
    (tmp_path / "b").mkdir()
    write_state(tmp_path / "b" / "model.safetensors", state, metadata)
    singles["ingredient:1"] = MemoryReader(facts={"num_parameters": 100}, root=tmp_path / "b")
    found = run_stage(
        STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup"
    ).facts
    assert found["ingredients"][0]["valid_accuracy"] == pytest.approx(
        found["ingredients"][1]["valid_accuracy"], abs=0.02
    )
    assert (
        found["methods"]["uniform"]["valid_accuracy"] < found["methods"]["best"]["valid_accuracy"]
    )
    assert found["chosen"] == "best"
    assert list(found["methods"]) == ["best", "uniform", "greedy"]
    assert "behind a barrier" in found["remarks"][0]
    # Greedy's soup of all outputs is one of the models, whichever ones the halves preferred.
    assert found["methods"]["greedy"]["same_as"] in ("ingredient:0", "ingredient:1")


def test_a_soup_of_models_with_batch_norm_is_measured_on_training_records(tmp_path, data):
    singles = trained(tmp_path / "train", data, 2, model="gin")
    inputs = {"train": data["train"], "valid": data["valid"], **singles}
    found = run_stage(STAGE, Params("uniform"), inputs, tmp_path / "soup")
    state = read_state(found.path("chosen.safetensors"))[0]
    model = load_model(found.path("chosen.safetensors"))
    names = [name for name in state if name.endswith("running_mean")]
    assert names
    recalibrate(model, data["train"].batches(layers=3, adj="plain", shuffle=False))
    torch.testing.assert_close(
        {n: state[n] for n in names}, {n: model.state_dict()[n] for n in names}
    )
    ends = [load_model(r.path("model.safetensors")).state_dict() for r in singles.values()]
    assert not any(torch.allclose(state[n], (ends[0][n] + ends[1][n]) / 2) for n in names)
    with pytest.raises(BadInput, match=r"batch norms.*expected a packed train split"):
        run_stage(STAGE, Params("uniform"), {"valid": data["valid"], **singles}, tmp_path / "none")
    best = found.facts["methods"]["best"]["members"][0]
    alone = read_state(found.path("soup-best.safetensors"))[0]
    assert all(torch.equal(alone[n], ends[best][n]) for n in alone)


def test_one_ingredient_is_its_own_soup(tmp_path, data):
    singles = trained(tmp_path / "train", data, 1)
    found = run_stage(STAGE, Params("auto"), {"valid": data["valid"], **singles}, tmp_path / "soup")
    assert found.facts["chosen"] == "best"  # a tie goes to the simplest
    mine = load_model(singles["ingredient:0"].path("model.safetensors")).state_dict()
    for name in ("best", "uniform", "greedy"):
        soup = load_model(found.path(f"soup-{name}.safetensors")).state_dict()
        assert all(torch.equal(mine[k], soup[k]) for k in mine)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_asked_for_is_chosen(tmp_path, data, method):
    singles = untrained(tmp_path / "a", [4, 5])
    found = run_stage(STAGE, Params(method), {"valid": data["valid"], **singles}, tmp_path / "soup")
    assert found.facts["chosen"] == method
    assert set(found.facts["methods"]) == {"best", method}
    assert found.has(f"soup-{method}.safetensors")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            {"init": "elsewhere"},
            (
                r"0 \(.*a/0/model.safetensors\) and .* 1 \(.*b/0/model.safetensors\) differ in "
                r"init_digest: start against"
            ),
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
        run_stage(
            STAGE,
            Params("auto"),
            {"valid": blind, **untrained(tmp_path / "a", [0])},
            tmp_path / "soup",
        )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"soup.method": "bset"},
            "soup.method: expected auto, best, uniform, greedy, gis, .* 'bset'",
        ),
        ({"soup.holdout": 1.0}, "soup.holdout: expected a share .* found 1"),
        ({"soup.holdout": -0.1}, "soup.holdout: expected a share .* found -0.1"),
        ({"soup.drawn": 33}, r"soup.drawn: expected at most soup.parts \(32\), found 33"),
    ],
)
def test_what_is_none_is_refused_by_name(values, words):
    with pytest.raises(BadInput, match=words):
        STAGE.resolve({**DEFAULTS, **values}, {})


def test_settings_are_read_by_the_methods_they_are_for_alone():
    assert STAGE.resolve({**DEFAULTS, "soup.holdout": 0.25}, {}) == Params("auto", holdout=0.25)
    other = {"soup.epochs": 7, "soup.rate": 2.5, "soup.period": 3, "soup.parts": 8, "soup.drawn": 2}
    assert STAGE.resolve({**DEFAULTS, **other}, {}) == Params("auto")

    def of(method, **values):
        return STAGE.resolve({**DEFAULTS, **values, "soup.method": method}, {})

    assert of("published") == Params("published", epochs=25, rate=10.0, period=4)
    assert of("partition") == Params("partition", epochs=50, rate=1.0, period=4, parts=32, drawn=4)
    assert of("published", **other) == Params("published", epochs=7, rate=2.5, period=3)
    assert of("partition", **other) == Params(
        "partition", epochs=7, rate=2.5, period=3, parts=8, drawn=2
    )


def test_the_settings_of_a_run_reach_the_methods(tmp_path, data, monkeypatch):
    seen = []
    plain = kitchen.cook

    def cook(scorer, **options):
        seen.append(options["schedule"])
        return plain(scorer, **{**options, "method": "uniform"})

    monkeypatch.setattr(kitchen, "cook", cook)
    singles = untrained(tmp_path / "a", [4, 5])
    same = {"epochs": 3, "rate": 2.5, "period": 2}
    for i, params in enumerate(
        (Params("published", **same), Params("partition", **same, parts=8, drawn=2))
    ):
        run_stage(STAGE, params, {"valid": data["valid"], **singles}, tmp_path / f"soup{i}")
    assert seen == [SgdParams(3, 2.5, 2), SgdParams(3, 2.5, 2, 8, 2)]


def test_the_methods_named_are_those_made():
    from stockpot.stages.soup import methods

    assert METHODS == methods.METHODS
    assert all(callable(getattr(methods.Methods, name)) for name in METHODS)


def test_more_than_ten_ingredients_stand_in_the_order_of_their_numbers():
    names = ["valid", *(f"ingredient:{i}" for i in np.random.default_rng(0).permutation(12))]
    assert roles(names) == [f"ingredient:{i}" for i in range(12)]


def test_projection_grows_with_the_number_of_ingredients(data):
    facts = {
        "valid": data["valid"].facts,
        "ingredient:0": {"num_parameters": 1_000_000, "hidden": 16},
    }
    more = {**facts, "ingredient:1": facts["ingredient:0"]}
    assert STAGE.cost(Params("auto"), facts).read < STAGE.cost(Params("auto"), more).read
    grown = STAGE.cost(Params("auto"), more).peak - STAGE.cost(Params("auto"), facts).peak
    assert 0 < grown < 1_000_000  # some cached logits; weights are streamed
