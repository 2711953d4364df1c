"""Seconds to an accuracy and rows of benchmarks, against figures by hand."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.accuracy_chart import LINE, chart
from tests.bench.time_to_accuracy import (
    Point,
    breaks_even,
    mean_curve,
    mean_reached,
    ratio_row,
    reached,
)

CURVE = [Point(1.0, 0.9, 0.50, 0.49), Point(2.0, 1.8, 0.70, 0.69), Point(3.0, 2.7, 0.65, 0.66)]


def test_the_first_point_at_the_accuracy_counts_even_if_later_ones_fall():
    assert reached(CURVE, 0.70) == CURVE[1]
    assert reached(CURVE, 0.5) == CURVE[0]
    assert reached(CURVE, 0.701) is None
    assert reached([], 0.1) is None


def test_the_mean_over_seeds_ends_with_the_shortest():
    other = [Point(3.0, 2.9, 0.70, 0.51), Point(4.0, 3.8, 0.80, 0.71)]
    mean = mean_curve([CURVE, other])
    assert [point.seconds for point in mean] == [2.0, 3.0]
    assert mean[0].valid == pytest.approx(0.6)
    assert mean[1].test == pytest.approx(0.7)


def test_seeds_that_end_at_the_accuracy_are_averaged_where_each_came_to_it():
    early = [Point(1.0, 0.9, 0.72, 0.5)]
    mean = mean_reached([CURVE, early], 0.70)
    assert (mean.seconds, mean.valid) == (1.5, pytest.approx(0.71))
    assert mean_reached([CURVE, early], 0.71) is None
    assert mean_reached([], 0.5) is None


@given(
    st.floats(0, 1e4),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
)
def test_preprocessing_pays_after_the_fewest_trainings_that_make_up_for_it(before, ours, peer):
    n = breaks_even(before, ours, peer)
    if ours >= peer:
        assert n is None
        return
    saved = peer - ours
    assert n >= 1
    assert n * saved >= before * (1 - 1e-12)
    assert n == 1 or (n - 1) * saved < before


def test_preprocessing_never_pays_where_a_side_did_not_come_to_the_accuracy():
    assert breaks_even(1.0, None, 2.0) is None
    assert breaks_even(1.0, 2.0, None) is None


@pytest.mark.parametrize(
    ("ours", "peer", "target", "ratio", "met"),
    [
        (2.0, 4.0, 1.5, 2.0, True),
        (2.0, 2.5, 1.5, 1.25, False),
        (2.0, 4.0, None, 2.0, None),  # no target
        (2.0, None, 1.5, None, None),  # not installed
        (None, 4.0, 1.5, None, False),  # ours did not come to it
    ],
)
def test_a_row_is_met_missed_or_neither(ours, peer, target, ratio, met):
    row = ratio_row("x", "graph", ours, "peer", peer, 3, target, note=1)
    assert (row["ratio"], row["met"]) == (ratio, met)
    contract = ("what", "dataset", "ours", "peer", "peer_value", "unit", "threads", "n", "ratio",
                "target", "met")  # fmt: skip
    assert set(contract) <= set(row)
    assert row["note"] == 1


def test_a_chart_names_every_line_at_its_own_height_and_starts_after_preprocessing():
    curves = {"a & b": CURVE, "c": CURVE, "empty": []}
    drawn = ET.fromstring(chart(curves, {"a & b": 10.0, "c": 0.0, "empty": 0.0}, "title <1>"))
    name = "{http://www.w3.org/2000/svg}"
    labels = [one for one in drawn.iter(f"{name}text") if one.text in curves]
    assert sorted(one.text for one in labels) == ["a & b", "c"]
    heights = sorted(float(one.get("y")) for one in labels)
    assert heights[1] - heights[0] >= LINE
    lines = [one for one in drawn.iter(f"{name}path") if one.find(f"{name}title") is not None]
    starts = [float(one.get("d")[1:].split()[0]) for one in lines]
    assert starts[0] > starts[1]
    assert all(math.isfinite(start) for start in starts)
