"""The figures of soups in the report are those of the soup's facts, for one ingredient as for
fifty."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.show.html import page, section
from stockpot.stages.soup.sections import Souped, soup_sections, souped_of, varied
from stockpot.stages.soup.soup_chart import Path, Scored, Weights, error_bars, heat_map, landscape
from tests.pipeline.report.pages import sound
from tests.pipeline.report.test_summary import built

GROUPS = ["convs.0", "convs.1"]


def facts(n=3, *, hostile="", divided=True):
    even = [[1 / n] * n]
    signed = [
        [(1.5 if i == 0 else -0.5 / (n - 1)) if n > 1 else 1.0 for i in range(n)] for _ in GROUPS
    ]
    common = {
        "fit_accuracy": 0.8,
        "members": [0],
        "gain": 0.01,
        "gain_error": 0.004,
        "p_value": 0.01,
        "n_eff": 1.5,
    }
    return {
        "chosen": "signed",
        "methods": {
            "best": {
                **common,
                "valid_accuracy": 0.75,
                "alpha": {"granularity": "global", "groups": ["all"], "weights": even},
            },
            "signed": {
                **common,
                "valid_accuracy": 0.76,
                "alpha": {
                    "granularity": "layer",
                    "groups": [g + hostile for g in GROUPS],
                    "weights": signed,
                },
            },
        },
        "parts": {
            "divided": divided,
            "records": [1, 1],
            "labelled": [100, 400],
        },
        "ingredients": [
            {
                "valid_accuracy": 0.7,
                "valid_loss": 0.9,
                "barrier": {"height": 0.2, "soupable": i > 0},
            }
            for i in range(n)
        ],
        "ensemble": {"valid_accuracy": 0.78},
        "landscape": [
            {
                "from": "ingredient 0",
                "to": "signed",
                "at": [0.0, 0.5, 1.0],
                "loss": [0.9, 0.8, 0.7],
            },
            {
                "from": "ingredient 0",
                "to": f"ingredient 1{hostile}",
                "at": [0, 0.5, 1],
                "loss": [0.9, math.nan, 1.0],
            },
        ],
        "labelled": 500,
        "remarks": [f"something{hostile}"],
    }


def shown(souped):
    text = page("x", f"<h1>x</h1>{section('Soups', *soup_sections(souped))}")
    return sound(text), text


@pytest.mark.parametrize("n", [1, 3, 12, 13, 50])
def test_a_soup_of_any_size(n):
    test = {"best": 0.74, "signed": 0.755, **{f"ingredient:{i}": 0.7 for i in range(n)}}
    found, text = shown(
        Souped(facts(n), {"signed": 3.0}, {"signed": 5_000_000}, test, 900, ["lr 0.1"] * n)
    )
    titles = [picture["title"] for picture in found.pictures]
    assert titles == [
        "accuracy with standard errors",
        "loss between ingredients and soup",
        "weights of the ingredients",
    ]
    error = 100 * math.sqrt(0.76 * 0.24 / 500)
    assert f"soup: signed: valid 76.00 % ± {error:.2f}" in found.pictures[0]["desc"]
    assert ("single model 0" in found.pictures[0]["desc"]) == (n <= 12)
    assert f"{n} single models" in text or n <= 12
    assert found.pictures[1]["desc"].startswith("model 0 to soup: signed: 0.9 0.8 0.7")
    methods = next(t for c, t in found.tables.items() if c.startswith("What each soup"))
    assert methods[2][:6] == [
        "soup: signed",
        "layer",
        "80.00 %",
        "76.00 %",
        "75.50 %",
        "+1.00 ± 0.40",
    ]
    cells = [tag for tag, attrs in found.drawn if tag == "rect"]
    assert len(cells) == 2 * n
    assert text.count("minus") - 1 == (2 * (n - 1) if n > 1 else 0)  # one is the style's


def test_what_is_unknown_is_left_out():
    plain = {
        "chosen": "best",
        "methods": {"best": {"valid_accuracy": 0.7, "valid_loss": 1.0, "members": [0]}},
        "ingredients": [{"valid_accuracy": 0.7, "valid_loss": 1.0}],
        "labelled": 10,
    }
    found, _ = shown(Souped(plain))
    assert len(found.pictures) == 1
    assert next(iter(found.tables.values())) == [["soup", "valid"], ["soup: best", "70.00 %"]]


def test_names_are_escaped():
    found, text = shown(Souped(facts(2, hostile="<script>alert(1)</script>\"'&<b>")))
    assert "<script" not in text
    assert found


def test_the_soup_of_a_run_is_found_and_its_figures_are_in_the_report():
    _, nodes = built()
    souped = souped_of(nodes)
    assert souped.seconds == {"greedy": 3.0}
    assert shown(souped)
    assert souped_of([b for b in nodes if b.node.stage != "soup"]) is None


def test_only_what_differs_is_said_of_trainings():
    assert varied([{"lr": 0.1, "dropout": 0.5}, {"lr": 0.2, "dropout": 0.5}]) == [
        "lr 0.1",
        "lr 0.2",
    ]
    assert varied([{"lr": 0.1}, {"lr": 0.1}]) == ["", ""]
    assert varied([{}]) == [""]


def coordinates(picture):
    return [float(v) for v in re.findall(r"[ML](-?[\d.]+) ", picture)]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.1)), min_size=1, max_size=20))
def test_error_bars_stay_inside_and_are_as_long_as_the_error(values):
    picture = error_bars([Scored(f"m{i}", v, e, v, e) for i, (v, e) in enumerate(values)])
    assert all(0 <= x <= 720 for x in coordinates(picture))


@given(st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=1, max_size=30))
def test_lines_stay_inside_whatever_the_losses(losses):
    picture = landscape([Path("a", f"b{i}", [0, 0.5, 1], loss) for i, loss in enumerate(losses)])
    heights = [float(v) for v in re.findall(r'cy="(-?[\d.]+)"', picture)]
    assert all(0 <= y <= 300 for y in heights)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 10))
def test_a_cell_for_every_weight(n, rows, seed):
    import random

    draw = random.Random(seed)
    table = [[draw.uniform(-1, 1) for _ in range(n)] for _ in range(rows)]
    picture = heat_map([Weights("learned", [f"g{i}" for i in range(rows)], table)])
    assert picture.count("<rect") == n * rows
    assert picture.count("minus") == sum(w < 0 for row in table for w in row)
    assert heat_map([Weights("zero", ["all"], [[0.0] * n])])
