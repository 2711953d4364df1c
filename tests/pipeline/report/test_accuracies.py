"""One model, one accuracy: equal soups share a row, what chose them is said, and the mean of all is
a ceiling."""

import re

import pytest

from stockpot.report.accuracies import (
    CEILING,
    Row,
    accuracy_text,
    chosen_words,
    ensemble_row,
    soup_rows,
)
from stockpot.report.summary import accuracy_rows, summarise
from tests.pipeline.report.test_summary import built


def method(valid, same=None, crossed=None, test=0.5):
    return {
        "valid_accuracy": valid,
        "test_accuracy": test,
        "same_as": same,
        "cross_fitted_accuracy": crossed,
    }


def test_soups_of_equal_weights_share_a_row():
    methods = {
        "best": method(0.8, "ingredient:2", 0.79),
        "uniform": method(0.7, None, 0.69),
        "greedy": method(0.8, "ingredient:2", 0.78),
        "gis": method(0.81, None, 0.8),
        "learned": method(0.81, "gis", 0.8),
    }
    rows = soup_rows({"chosen": "learned", "chosen_by": "validation", "methods": methods})
    assert rows == [
        Row("soup: best, greedy", 0.8, 0.5, None, ["single model 2"], ["best", "greedy"]),
        Row("soup: uniform", 0.7, 0.5, 0.69, [], ["uniform"]),
        Row(
            "soup: gis, learned",
            0.81,
            0.5,
            0.8,
            ["learned chosen on validation"],
            ["gis", "learned"],
            chosen=True,
        ),
    ]
    assert [sum(name in row.methods for row in rows) for name in methods] == [1] * 5


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("validation", "Chosen on validation: best"),
        ("recipe", "Asked for by soup.method: best"),
        ("nothing", "The only model: best"),
        (None, "Chosen: best"),
    ],
)
def test_validation_is_said_to_have_chosen_only_where_it_did(by, words):
    soup = {"chosen": "best", "chosen_by": by, "methods": {"best": method(0.8)}}
    assert chosen_words(soup) == words
    assert soup_rows(soup)[0].remarks == [
        words.removesuffix(": best")[0].lower() + words.removesuffix(": best")[1:]
    ]
    assert ("on validation" in accuracy_text(soup_rows(soup))) == (by == "validation")


def test_all_models_together_are_a_ceiling_and_one_model_is_none():
    row = ensemble_row({"valid_accuracy": 0.9, "test_accuracy": 0.89, "models": 8})
    assert row == Row("all 8 models together", 0.9, 0.89, None, [CEILING])
    assert ensemble_row({"valid_accuracy": 0.9, "models": 1}) is ensemble_row(None) is None


def test_a_model_has_one_accuracy_whatever_row_it_stands_in():
    """Where training saw other outputs than souping did, or summed otherwise, the figure of the
    soup stage counts."""
    recipe, nodes = built()
    soup = next(b for b in nodes if b.node.stage == "soup")
    soup.manifest["facts"] |= {
        "ingredients": [{"valid_accuracy": 0.61}, {"valid_accuracy": 0.62}],
        "methods": {"best": method(0.62, "ingredient:1", 0.6)},
        "chosen": "best",
        "ensemble": {"valid_accuracy": 0.66, "models": 2},
    }
    infer = next(b for b in nodes if b.node.stage == "infer")
    infer.manifest["facts"]["results"]["ensemble"] = 0.65
    summary = summarise(recipe, nodes)
    assert [one["valid_accuracy"] for one in summary["train"]["ingredients"]] == [0.61, 0.62]
    assert summary["soup"]["ensemble"] == {
        "valid_accuracy": 0.66,
        "test_accuracy": 0.65,
        "models": 2,
    }
    rows = accuracy_rows(summary)
    assert [(row.name, row.valid, row.test) for row in rows] == [
        ("single model 0 (seed 0)", 0.61, 0.71),
        ("single model 1 (seed 1)", 0.62, 0.72),
        ("soup: best", 0.62, 0.72),
        ("all 2 models together", 0.66, 0.65),
    ]
    assert rows[2].remarks == ["single model 1", "chosen on validation"]
    text = accuracy_text(rows)
    assert text.splitlines()[0].split() == ["accuracy", "valid", "cross-fitted", "test"]
    assert [re.findall(r"[\d.]+(?= %)", line) for line in text.splitlines() if "%" in line] == [
        ["61.00", "71.00"],
        ["62.00", "72.00"],
        ["62.00", "60.00", "72.00"],
        ["66.00", "65.00"],
    ]
    assert "a ceiling" in text.splitlines()[-1]
    only = [b for b in nodes if b.node.stage in ("ingest", "split", "train")]
    assert [one["valid_accuracy"] for one in summarise(recipe, only)["train"]["ingredients"]] == [
        0.7,
        0.71,
    ]
