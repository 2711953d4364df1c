"""Which precision "auto" is: the faster one, as the first machine of a store measured it."""

import json

import pytest

from stockpot.planning import dag
from stockpot.planning.recipe import from_tables
from stockpot.stages.calibrate import STAGE, product_seconds
from stockpot.stages.calibrate.reporting import REPORTING
from stockpot.stages.calibrate.stage import Params
from stockpot.stages.train.train_params import resolved_precision
from tests.graphs import write_recipe
from tests.memory import run_stage
from tests.runs import run_here


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [(4.0, 2.0, "bf16"), (4.0, 3.6, "bf16"), (4.0, 3.7, "fp32"), (1.0, 4.0, "fp32")],
)
def test_bf16_is_taken_where_it_is_worth_it(tmp_path, monkeypatch, wide, narrow, expected):
    seconds = {"fp32": wide, "bf16": narrow}
    monkeypatch.setattr(product_seconds, "product_seconds", lambda *_: seconds)
    facts = run_stage(STAGE, Params("cpu", 8), {}, tmp_path).facts
    assert facts["precision"] == expected
    assert (facts["fp32_ms"], facts["bf16_ms"]) == (1000 * wide, 1000 * narrow)


def test_a_device_without_bf16_takes_fp32(tmp_path, monkeypatch):
    seconds = {"fp32": 1.0, "bf16": None}
    monkeypatch.setattr(product_seconds, "product_seconds", lambda *_: seconds)
    facts = run_stage(STAGE, Params("cuda", 8), {}, tmp_path).facts
    assert (facts["precision"], facts["bf16_ms"], facts["flags"]) == ("fp32", None, [])


def test_both_precisions_are_measured():
    seconds = product_seconds.product_seconds("cpu", 64, 32)
    assert set(seconds) == {"fp32", "bf16"}
    assert all(0 < value < 10 for value in seconds.values())


def resolved(**recipe):
    asked = {"train.device": "cpu", "train.ranks": 1, "train.hidden": 64}
    return STAGE.resolve({**asked, **recipe}, {})


def test_a_store_has_one_measurement_for_a_device_and_a_width():
    assert resolved() == Params("cpu", 64)
    assert resolved(**{"train.hidden": 32}) != resolved()


def test_only_auto_measures():
    def nodes(**train):
        return {n.id: n for n in dag.build(from_tables("x", {"train": train}))}

    found = nodes(precision="auto", warmup=1, ingredients=2)
    assert found["calibrate"].inputs == {}
    for name in ("warmup", "train:0", "train:1"):
        assert found[name].advice["calibrate"] == "calibrate"
    assert "calibrate" not in nodes(precision="bf16")
    student = {"features": {"propagate": 1}, "infer": {"by": "student"}}
    tables = {"train": {"precision": "auto"}, **student}
    served = {n.id: n for n in dag.build(from_tables("x", tables))}
    assert served["student"].advice == {"calibrate": "calibrate"}


def test_a_name_stands_and_auto_follows():
    assert resolved_precision("bf16", {}) == "bf16"
    assert resolved_precision("auto", {"calibrate": {"precision": "bf16"}}) == "bf16"


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_a_run_trains_as_its_store_says_whoever_measured_it(tmp_path, monkeypatch, faster):
    def measured(*_):
        return {"fp32": 2.0, "bf16": 1.0 if faster == "bf16" else 3.0}

    monkeypatch.setattr(product_seconds, "product_seconds", measured)
    recipe = write_recipe(tmp_path, epochs=2, ingredients=1)
    text = recipe.read_text()
    recipe.write_text(text.replace("[train]", '[train]\nprecision = "auto"'))
    found = run_here(recipe, tmp_path / "runs", ["train:0", "calibrate"])
    assert found["calibrate"].facts["precision"] == faster
    assert found["train:0"].manifest["params"].get("precision", "fp32") == faster
    # Another machine, of which the opposite is true: it follows, and trains nothing anew.
    other = "bf16" if faster == "fp32" else "fp32"
    flipped = {"fp32": 2.0, "bf16": 1.0 if other == "bf16" else 3.0}
    monkeypatch.setattr(product_seconds, "product_seconds", lambda *_: flipped)
    again = run_here(recipe, tmp_path / "runs", ["train:0", "calibrate"])
    assert again["train:0"].key == found["train:0"].key
    assert again["calibrate"].facts == found["calibrate"].facts
    recipe.write_text(text.replace("[train]", f'[train]\nprecision = "{faster}"'))
    assert run_here(recipe, tmp_path / "runs", ["train:0"])["train:0"].key == found["train:0"].key


def test_summary_and_report_say_what_was_measured():
    facts = {"precision": "bf16", "fp32_ms": 4.0, "bf16_ms": 2.0, "device": "cpu", "flags": []}
    view = type("View", (), {"facts": lambda self, name: facts})()
    summary = REPORTING.summary(view)
    assert summary == {"stages": {"calibrate": facts}}
    (block,) = REPORTING.report(summary, view)
    assert "train.precision = auto is bf16" in block.body
    assert json.dumps(summary)
