"""Axes have round ticks inside their range, histograms lose no record, and points lie where their
values say."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.show.chart import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Line,
    bins,
    histograms,
    line_chart,
    meter,
    ticks,
)
from tests.pipeline.report.pages import Page

SANE = st.floats(-1e6, 1e6, allow_nan=False)


@given(SANE, st.floats(1e-6, 1e6), st.integers(1, 12))
def test_ticks(low, span, about):
    high = low + span
    found = ticks(low, high, about)
    slack = span * 1e-6 + abs(high) * 1e-12
    assert all(low - slack <= value <= high + slack for value in found)
    assert found == sorted(set(found))
    assert len(found) <= about + 1
    if about >= 5 and span > abs(low) * 1e-6:
        assert len(found) >= 2


@given(
    st.dictionaries(
        st.sampled_from(["train", "valid", "test"]),
        st.lists(st.integers(0, 10**9), min_size=1, max_size=60),
        min_size=1,
    )
)
def test_no_record_is_lost(rows):
    edges, counts = bins(rows)
    steps = {b - a for a, b in pairwise(edges)}
    assert len(steps) == 1
    assert str(steps.pop()).strip("0") in {"1", "2", "5"}
    assert len(edges) <= 20
    inside = [v for values in rows.values() for v in values]
    assert edges[0] <= min(inside) < edges[1]
    assert edges[-2] <= max(inside) < edges[-1]
    for name, values in rows.items():
        for i, n in enumerate(counts[name]):
            assert n == sum(edges[i] <= v < edges[i + 1] for v in values)
        assert sum(counts[name]) == len(values)
    page = Page(f"<h1>{histograms(rows, 'a', 'b', 'c')}</h1>")
    shown = [re.fullmatch(r"(\w+): ([\d,]+) records of .*", t) for t in page.titles]
    for name, values in rows.items():
        assert sum(int(m[2].replace(",", "")) for m in shown if m and m[1] == name) == len(values)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_points_lie_where_their_values_say(values):
    points = [(float(i), v) for i, v in enumerate(values, 1)]
    text = line_chart([Line("one", points, strong=True)], "a", "b", "epoch")
    path = next(a["d"] for tag, a in Page(f"<h1>{text}</h1>").drawn if tag == "path")
    found = [tuple(map(float, pair.split())) for pair in path[1:].split(" L")]
    assert len(found) == len(points)
    assert (found[0][0], found[-1][0]) == (LEFT, WIDTH - RIGHT)
    span = max(values) - min(values)
    if span > 1e-6:
        low, high = found[values.index(min(values))][1], found[values.index(max(values))][1]
        for (_, y), v in zip(found, values, strict=True):
            assert y == pytest.approx(low + (v - min(values)) / span * (high - low), abs=0.11)
    assert all(0 < y < HEIGHT for _, y in found)


def test_values_are_drawn_in_the_unit_of_their_axis():
    shares = [Line("one", [(1.0, 0.5), (2.0, 0.75)]), Line("two", [(1.0, 0.625)], strong=True)]
    percent = [
        Line(one.name, [(x, 100 * y) for x, y in one.points], strong=one.strong) for one in shares
    ]
    assert line_chart(shares, "a", "b", "epoch", 100.0) == line_chart(percent, "a", "b", "epoch")
    drawn = [
        tag for tag, _ in Page(f"<h1>{line_chart(shares[::-1], 'a', 'b', 'epoch')}</h1>").drawn
    ]
    assert drawn.index("path") < drawn.index(
        "circle"
    )  # the strong one on top, in whatever order they are given


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0, 1e12))
def test_a_meter_stays_in_its_width(part, whole, most):
    text = meter(part, whole, most, 100)
    widths = [float(a["width"]) for tag, a in Page(f"<h1>{text}</h1>").drawn]
    assert all(0 <= w <= 100 for w in widths)
    assert ("over" in text) == (part > whole > 0)
