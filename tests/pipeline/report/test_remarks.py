"""Each remark stands where its cause does, names it and the setting that mends it, and nowhere
else."""

from dataclasses import replace

import pytest

from stockpot.report.page import Report, render
from stockpot.report.run_outputs import result_text
from stockpot.report.summary import remarks, summarise, view_of
from tests.pipeline.report.test_summary import built
from tests.recipes import with_values

METHODS = {
    "best": {"valid_accuracy": 0.75, "members": [0]},
    "uniform": {"valid_accuracy": 0.76, "members": [0, 1]},
}
GOOD = {"chosen": "uniform", "methods": METHODS, "parts": {"divided": True}, "labelled": 10}
BARRIER = {"height": 0.4, "middle_loss": 2.0, "loss": 1.0, "soupable": False}
NONE = {**BARRIER, "height": 0.0, "soupable": True}


def said(facts=None, *, sets=(), notes=None, params=None):
    """Remarks of a run without any, some of whose facts, notes, parameters and recipe values are
    others."""
    recipe, nodes = built()
    recipe = with_values(recipe, dict(sets))
    facts = {"soup": GOOD, **(facts or {})}
    out = []
    for b in nodes:
        manifest = {
            **b.manifest,
            "facts": {**b.facts, **facts.get(b.node.id, {})},
            "notes": {"a": (notes or {}).get(b.node.id, {})},
            "params": {"device": "cpu", **(params or {}).get(b.node.id, {})},
        }
        out.append(replace(b, manifest=manifest))
    for name, extra in facts.items():
        if name not in {b.node.id for b in out}:
            node = replace(out[0].node, id=name, stage=name.partition(":")[0])
            out.append(replace(out[0], node=node, manifest={**out[0].manifest, "facts": extra}))
    return remarks(view_of(recipe, out)), recipe, out


def test_nothing_to_say():
    lines, recipe, nodes = said()
    assert lines == []
    assert remarks(view_of(recipe, [])) == []
    assert summarise(recipe, nodes)["remarks"] == []


@pytest.mark.parametrize(
    ("batched", "whole", "words"),
    [
        (
            0.658,
            0.601,
            [
                "5.7 points above",
                "65.80 %",
                "60.10 %",
                "--set batches.top_k=32 --set batches.outputs=512",
            ],
        ),
        (
            0.601,
            0.658,
            [
                "5.7 points below",
                "--set infer.top_k=32 --set batches.outputs=1024",
                "graph.mass=row",
            ],
        ),
        (0.65, 0.64, None),
        (0.64, 0.65, None),
        (0.64, None, None),
        (None, None, None),
    ],
)
def test_training_and_inference_disagree(batched, whole, words):
    records = {
        "influence:train": {"top_k": 16, "outputs": 256},
        "influence:test": {"top_k": 16, "outputs": 512},
    }
    infer = {"test_accuracy": batched, "full_graph_test_accuracy": whole}
    lines, *_ = said({"infer": infer}, params=records)
    assert len(lines) == (words is not None)
    for word in words or []:
        assert word in lines[0]


def test_larger_records_by_method():
    infer = {"infer": {"test_accuracy": 0.5, "full_graph_test_accuracy": 0.6}}
    assert "--set batches.aux_ratio=6" in said(infer, sets=[("batches.method", "batch")])[0][0]
    assert (
        "--set batches.fanouts=[20, 20, 20]"
        in said(infer, sets=[("batches.method", "labor")])[0][0]
    )
    assert "mass" not in said(infer, sets=[("train.model", "sage")])[0][0]


def test_a_soup_that_gains_nothing():
    alike = {**METHODS, "uniform": {"valid_accuracy": 0.745}}
    apart = {**METHODS, "uniform": {"valid_accuracy": 0.60}}
    (line,) = said({"soup": {**GOOD, "chosen": "best", "methods": alike}})[0]
    assert "no soup of 2 models" in line
    assert "too much alike" in line
    (line,) = said({"soup": {**GOOD, "chosen": "best", "methods": apart}})[0]
    assert "drifted apart in training, their mean is 15.0 points below" in line
    assert "--set train.warmup=10 --set train.schedule=constant --set train.vary=2" in line
    (line,) = said(
        {"soup": {**GOOD, "chosen": "best", "methods": apart}}, sets=[("train.warmup", 5)]
    )[0]
    assert "a longer train.warmup" in line
    (line,) = said({"soup": {**GOOD, "methods": apart}}, sets=[("soup.method", "uniform")])[0]
    assert "uniform, is 15.00 points below the best single model" in line
    assert "--set soup.method=auto" in line
    silent = {**GOOD, "chosen": "best", "methods": apart}
    assert said({"soup": silent}, sets=[("soup.method", "best")])[0] == []
    assert said({"soup": silent}, sets=[("train.ingredients", 1)])[0] == []


def test_ingredients_behind_barriers():
    measured = [{"barrier": NONE}, {"barrier": BARRIER}, {"barrier": None}]
    (line,) = said({"soup": {**GOOD, "ingredients": measured}})[0]
    assert line.startswith("1 of 2 ingredients lie behind a barrier (highest 0.40 nats)")
    assert "--set train.warmup=10" in line
    assert said({"soup": {**GOOD, "ingredients": measured[:1]}})[0] == []


@pytest.mark.parametrize(
    ("kappa", "order", "broken"),
    [
        (16, {"method": "label"}, True),
        (16, {"method": "shuffle"}, True),
        (16, {"method": "sample"}, True),
        (16, {"method": "overlap", "window": 1}, True),
        (16, {"method": "overlap", "window": 2}, False),
        (16, {"method": "overlap", "window": 0}, False),
        (1, {"method": "label"}, False),
        ("inf", {"method": "label"}, False),
        (None, {"method": "label"}, False),
    ],
)
def test_an_order_that_breaks_kappa(kappa, order, broken):
    lines, *_ = said({"sample:train": {"sampling": {"kappa": kappa}}, "order": order})
    assert len(lines) == broken
    if broken:
        assert "batches.kappa = 16" in lines[0]
        assert "--set order.method=overlap --set order.window=16" in lines[0]


def test_an_auto_that_fell_back():
    stream = {"partition": {"method": "stream"}}
    assert "KaMinPar is projected to need more" in said(stream)[0][0]
    assert said(stream, sets=[("partition.method", "stream")])[0] == []

    kept = {"judge": {"codec": "fp32", "rate": [{}], "reason": "sq8 may cost 2 points"}}
    assert "features stay fp32" in said(kept)[0][0]
    assert "sq8 may cost 2 points" in said(kept)[0][0]
    assert said({"judge": {**kept["judge"], "codec": "sq8"}})[0] == []
    assert said(kept, sets=[("features.codec", "sq8")])[0] == []

    large = {"ingest": {"num_nodes": 10**8, "num_features": 128, "binary": False}}
    for model in ("sage-lstm", "my.nets:build"):
        assert (
            f"no judge runs train.model '{model}'"
            in said(large, sets=[("train.model", model)])[0][0]
        )
        assert said(sets=[("train.model", model)])[0] == []
        assert said(large, sets=[("train.model", model), ("features.codec", "sq8")])[0] == []

    nothing = {"hag": {"use": True}, "pack:train": {"hag": {"records": 0}}}
    assert "edge weights" in said(nothing)[0][0]
    assert said({**nothing, "pack:train": {"hag": {"records": 1}}})[0] == []
    assert said(nothing, sets=[("hag.enabled", "always")])[0] == []

    small = {"soup": {**GOOD, "parts": {"divided": False}}}
    assert (
        "the validation split (10 labelled outputs in 2 records) is too small" in said(small)[0][0]
    )
    assert said(small, sets=[("soup.method", "uniform")])[0] == []


def test_sizes_that_hold_too_little():
    def sized(enough):
        one = {"enough": enough, "held": [0.6, 0.3, 0.2], "outputs": 256}
        return {"sizing": {"splits": {"train": one, "test": {**one, "enough": True}}}}

    (line,) = said(sized(False))[0]
    assert line.startswith(
        "batches.top_k and batches.outputs auto: no size of records holds enough"
    )
    assert "(train 60 and 30 % are held)" in line
    assert "--set batches.outputs=512" in line
    assert said(sized(True))[0] == []
    assert said(sized(False), sets=[("batches.top_k", 16), ("batches.outputs", 9)])[0] == []


def test_gpus_that_are_not_used():
    def line(present, usable, **more):
        return said(notes={"train:0": {"gpus": {"present": present, "usable": usable}}}, **more)[0]

    assert "its torch is built without CUDA" in line(1, False)[0]
    assert (
        "2 ranks take a GPU each, and this machine has 1"
        in line(1, True, sets=[("train.ranks", 2)])[0]
    )
    assert line(1, True) == []
    assert line(1, False, sets=[("train.device", "cpu")]) == []
    assert line(1, True, params={"train:0": {"device": "cuda"}}) == []


def test_what_trainings_noted_is_said_once():
    notes = {"train:0": {"remarks": ["slow"]}, "train:1": {"remarks": ["slow", "resumed"]}}
    assert said(notes=notes)[0] == ["train:0, train:1: slow", "train:1: resumed"]


def test_they_end_the_output_and_begin_the_page(tmp_path):
    lines, recipe, nodes = said({"infer": {"test_accuracy": 0.5, "full_graph_test_accuracy": 0.6}})
    summary = summarise(recipe, nodes)
    assert summary["remarks"] == lines
    assert result_text(summary, nodes, tmp_path).endswith(f"\n\nremark: {lines[0]}")
    page = render(Report(recipe, {**summary, "remarks": ["1 < 2"]}, nodes))
    assert page.index("<li>1 &lt; 2</li>") < page.index("<h2>Accuracy")
    assert 'class="remarks"' not in render(Report(recipe, {**summary, "remarks": []}, nodes))


def test_a_code_that_costs_the_chosen_model_more_than_was_allowed():
    loss = {
        "codec": "sq1",
        "valid_accuracy": 0.8,
        "fp32_valid_accuracy": 0.805,
        "accuracy_drop": 0.005,
    }
    lines, recipe, nodes = said({"codeloss": loss})
    assert len(lines) == 1
    for word in (
        "sq1",
        "0.50 points",
        "80.00 %",
        "80.50 %",
        "max_accuracy_drop is 0.20",
        "--set features.codec=fp32",
    ):
        assert word in lines[0]
    assert summarise(recipe, nodes)["stages"]["quantize"]["accuracy_drop"] == 0.005
    assert said({"codeloss": {**loss, "accuracy_drop": 0.002}})[0] == []
    assert said({"codeloss": loss}, sets=[("features.max_accuracy_drop", 0.01)])[0] == []


def test_a_judge_that_took_more_than_a_tenth_of_a_short_training():
    trained = {"pack:train": {"rows": 1000}, "train:0": {"epochs": 5}, "train:1": {"epochs": 10}}
    lines, recipe, nodes = said({"judge": {"codec": "sq8", "row_passes": 3000}, **trained})
    assert len(lines) == 1
    assert "took 20 % of the rows" in lines[0]
    assert "--set features.codec=sq8" in lines[0]
    assert summarise(recipe, nodes)["stages"]["judge"]["row_pass_share"] == pytest.approx(0.2)
    assert said({"judge": {"codec": "sq8", "row_passes": 1500}, **trained})[0] == []
