"""Rows of `make bench-beyond` from figures by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.beyond_rows import (
    break_even_rows,
    epoch_row,
    lru_row,
    preprocessing_seconds,
    table,
)

LINE = {"outputs": 500, "rows": 65_000, "read_bytes": 40_000_000, "seconds": 30.0,
        "cpu_seconds": 5.0}  # fmt: skip


def test_an_epoch_follows_from_the_outputs_that_a_side_came_to():
    row = epoch_row("peer", "this one", LINE, 2_000, 3)
    assert row["rows_an_output"] == 130
    assert row["bytes_an_epoch"] == 160e6
    assert (row["seconds_an_epoch"], row["cpu_seconds_an_epoch"]) == (120.0, 20.0)
    assert row["seconds"] == 360.0
    assert not row["reckoned"]


def test_a_cache_reads_its_bytes_at_the_rate_that_was_measured():
    row = epoch_row("peer", "this one", LINE, 2_000, 3)
    cached = lru_row("LRU", row, 40e6)  # a quarter of the bytes: a quarter of the 100 s of waiting
    assert cached["bytes_a_second"] == pytest.approx(1.6e6)
    assert cached["seconds_an_epoch"] == pytest.approx(45.0)
    assert cached["seconds"] == pytest.approx(135.0)
    assert (cached["reckoned"], cached["epochs"], cached["what"]) == (True, 3, "LRU")
    assert row["bytes_an_epoch"] == 160e6  # the measured row is left alone


@given(st.floats(0, 1e12), st.floats(1, 1e12), st.floats(0, 1e5), st.floats(0, 1e5))
def test_a_cache_is_never_faster_than_its_cpu_seconds(few, read, waited, cpu):
    row = {"bytes_an_epoch": read, "seconds_an_epoch": cpu + waited, "cpu_seconds_an_epoch": cpu,
           "epochs": 1}  # fmt: skip
    cached = lru_row("LRU", row, few)
    assert cached["seconds_an_epoch"] >= cpu
    if few <= read:
        assert cached["seconds_an_epoch"] <= row["seconds_an_epoch"] * (1 + 1e-9) + 1e-9
    if cached["bytes_a_second"] and waited > 1e-3:
        rest = few / cached["bytes_a_second"]
        assert cached["seconds_an_epoch"] == pytest.approx(cpu + rest, rel=1e-6, abs=1e-6)


def test_without_bytes_there_is_no_rate():
    row = epoch_row("peer", "this one", LINE | {"read_bytes": 0}, 2_000, 3)
    assert lru_row("LRU", row, 1.0) is None


def test_preprocessing_is_what_a_peer_does_not_need():
    stages = {"ingest": {"seconds": 50.0}, "split": {"seconds": 1.0}, "pack": {"seconds": 4.0},
              "influence": {"seconds": 6.5}, "train": None, "student": {}}  # fmt: skip
    assert preprocessing_seconds(stages) == {"pack": 4.0, "influence": 6.5}


def rows():
    line = {"outputs": 1000, "rows": 8000, "read_bytes": 10, "seconds": 5.0, "cpu_seconds": 4.0}
    slow = epoch_row("peer", "slow", LINE, 1000, 2)  # 60 s an epoch
    return [
        epoch_row("stockpot", "slow", line, 1000, 2),
        slow,
        lru_row("LRU", slow, 0.0),  # 10 s an epoch
        {"what": "GraphBolt", "disk": "slow", "missing": "no --graphbolt"},
        epoch_row("stockpot", "fast", line, 1000, 2),
        epoch_row("peer", "fast", line | {"seconds": 4.5}, 1000, 2),
    ]


def test_preprocessing_pays_after_the_epochs_and_trainings_by_hand():
    found = list(break_even_rows(rows(), 100.0))
    assert [(row["disk"], row["peer"]) for row in found] == [
        ("slow", "peer"), ("slow", "LRU"), ("fast", "peer"),
    ]  # fmt: skip
    peer, lru, never = found
    # 100 s, and 55 s an epoch or 110 s a training of two epochs are gained.
    assert (peer["epochs"], peer["trainings"]) == (2, 1)
    assert (peer["first"], peer["peer_seconds"]) == (110.0, 120.0)
    assert peer["first_ratio"] == pytest.approx(120 / 110)
    assert (lru["epochs"], lru["trainings"], lru["reckoned"]) == (20, 10, True)
    assert (never["epochs"], never["trainings"]) == (None, None)


def test_the_table_has_every_row_and_what_preprocessing_costs():
    measured = rows()
    found = {"rows": measured, "preprocessing": {"pack": 60.0, "influence": 40.0},
             "break_even": list(break_even_rows(measured, 100.0))}  # fmt: skip
    lines = list(table(found))
    assert sum(line.startswith("| slow | ") for line in lines) == 5
    assert any("LRU (reckoned)" in line for line in lines)
    assert any("no --graphbolt" in line for line in lines)
    assert "Preprocessing, s: 100.0 (pack 60.0, influence 40.0)." in lines
    assert lines[-1].endswith("| never | never |")
    assert all(line.count("|") in (11, 7, 0) for line in lines)
