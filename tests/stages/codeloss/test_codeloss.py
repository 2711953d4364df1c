"""What the chosen model loses on coded features is measured on the records and rows that it was
chosen by."""

import json

import numpy as np
import pytest
import torch

from stockpot.cli import main
from stockpot.stages.codeloss import STAGE
from stockpot.stages.loader.records import Records
from stockpot.stages.train.evaluate import Score, score
from stockpot.stages.train.model import load_model
from tests.graphs import write_recipe
from tests.loaders import record_steps
from tests.runs import run_here

CODES = {"codes": {"codec": "fp32", "nmse": 0.0}}


def test_there_is_nothing_to_ask_where_nothing_is_lost():
    asked = {"train.device": "cpu"}
    for codec in ("fp32", "lossless-bits", "lossless-values", "fp16"):
        assert STAGE.resolve(asked, {"codes": {"codec": codec, "nmse": 0.0}}) is None
    for codec, nmse in (("fp16", 1e-8), ("sq8", 0.0), ("pq1", 0.5)):
        assert STAGE.resolve(asked, {"codes": {"codec": codec, "nmse": nmse}}).codec == codec


@pytest.mark.parametrize("codec", ["pq1", "fp16"])
def test_the_loss_is_that_of_the_chosen_model_on_its_validation_records(tmp_path, codec):
    extra = f'[features]\ncodec = "{codec}"\n'
    recipe = write_recipe(tmp_path, epochs=6, ingredients=1, features=32, extra=extra)
    asked = ["codeloss", "pack:valid", "soup", "ingest"]
    found = run_here(recipe, tmp_path / "runs", asked)
    facts, soup, graph = found["codeloss"].facts, found["soup"], found["ingest"]
    model = load_model(soup.path(f"soup-{soup.facts['chosen']}.safetensors"))
    sides = [Score(), Score()]
    steps = record_steps(
        Records.from_reader(found["pack:valid"]),
        store_key="",
        split="valid",
        layers=2,
        adj="norm",
        shuffle=False,
    )
    for step in steps:
        rows = torch.from_numpy(np.array(graph.array("x"))[step.n_id.numpy()])
        for i, x in enumerate((rows, step.x)):
            sides[i] += score(model(x, step.adjs).detach(), step.y)
    exact, coded = sides
    assert facts["labelled"] == coded.labelled == 150
    assert facts["fp32_valid_accuracy"] == pytest.approx(exact.accuracy)
    assert facts["valid_accuracy"] == pytest.approx(coded.accuracy)
    assert facts["accuracy_drop"] == pytest.approx(exact.accuracy - coded.accuracy)
    assert (abs(facts["accuracy_drop"]) > 0) == (codec == "pq1")


def whole(tmp_path, **options):
    """Summary and folder of a finished run that lets a judge have its say."""
    recipe = write_recipe(tmp_path, ingredients=1, **options)
    run_here(recipe, tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny"
    return json.loads((folder / "summary.json").read_text()), folder, recipe


def test_a_judge_of_few_outputs_keeps_features_and_the_rest_has_nothing_to_do(tmp_path):
    summary, folder, _ = whole(tmp_path, epochs=2, extra="[features]\nlossless_up_to = 0\n")
    assert {"judge", "quantize", "infer"} <= set(summary["artifacts"])
    assert not {"codebook", "codeloss"} & set(summary["artifacts"])
    assert summary["stages"]["judge"]["codec"] == summary["stages"]["quantize"]["codec"] == "fp32"
    assert summary["stages"]["quantize"]["accuracy_drop"] is None
    assert any("features stay fp32" in line and "too few" in line for line in summary["remarks"])
    assert "codebook" not in (folder / "report.html").read_text()


@pytest.mark.long
def test_auto_judges_codes_trains_on_them_and_asks_the_model_what_they_cost(tmp_path, capsys):
    extra = "[features]\nlossless_up_to = 0\nmax_accuracy_drop = 0.02\n"
    summary, folder, recipe = whole(
        tmp_path, epochs=3, nodes=12_000, degree=4, features=32, outputs=512, hidden=64, extra=extra
    )
    judge, codes = summary["stages"]["judge"], summary["stages"]["quantize"]
    assert (
        judge["codec"]
        == codes["codec"]
        == summary["stages"]["codebook"]["codec"]
        not in ("fp32", "fp16")
    )
    assert judge["row_passes"] <= judge["rows_allowed"]
    assert codes["accuracy_drop"] is not None
    assert judge["row_pass_share"] > 0.1  # three epochs are less than it is sized for
    assert any(
        "of the rows of this training, which is a short one" in line for line in summary["remarks"]
    )
    assert f"Chosen: {judge['codec']}" in (folder / "report.html").read_text()
    store = ["--store", str(tmp_path / "runs" / "store"), "--runs", str(tmp_path / "runs")]
    assert main(["inspect", str(recipe), "codebook", *store]) == 0
    words = capsys.readouterr().out
    assert "chosen by the judge" in words
    assert f"* {judge['codec']}" in words
