"""What the chosen model loses on coded features is measured on the records and rows that it was chosen by."""

import numpy as np
import pytest
import torch

from pipeline.records import Records
from pipeline.stream import Steps
from stages.codeloss import STAGE
from stages.train.evaluate import Score, score
from stages.train.model import load_model
from tests.graphs import write_recipe
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
    recipe = write_recipe(tmp_path, epochs=6, ingredients=1, extra=f'[features]\ncodec = "{codec}"\n')
    asked = ["codeloss", "pack:valid", "soup", "ingest"]
    found = run_here(recipe, tmp_path / "runs", asked)
    facts, soup, graph = found["codeloss"].facts, found["soup"], found["ingest"]
    model = load_model(soup.path(f"soup-{soup.facts['chosen']}.safetensors"))
    sides = [Score(), Score()]
    steps = Steps(
        Records.from_reader(found["pack:valid"]), store_key="", split="valid", layers=2, adj="norm", shuffle=False
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
