"""Rows of `make bench-train` from curves by hand: no process is started, no peer is needed."""

import argparse
from types import SimpleNamespace

import pytest

from tests.bench import training, training_process
from tests.bench.time_to_accuracy import Point
from tests.bench.training_case import WITHIN, Case
from tests.bench.training_graphs import GRAPHS

PREPROCESSING = {"plain": 3.0, "propagated": 8.0, "defaults": 4.0, "cluster": 1.0, "random": 1.0}
PACE = {"stockpot": 1.0, "dgl": 2.0, "graphbolt": 3.0, "full": 0.5, "sign": 0.1, "script": 6.0}
"""CPU seconds of an epoch by kind of batches."""


def curve_of(job, enough=None):
    """Accuracy rises by 0.1 an epoch to 0.8 in the fourth; SIGN ends at 0.6."""
    points = []
    for epoch in range(1, job["epochs"] + 1):
        valid = min(0.4 + 0.1 * epoch, 0.6 if job["kind"] == "sign" else 0.8)
        seconds = PACE[job["kind"]] * epoch
        points.append(Point(seconds, 0.9 * seconds, valid, valid - 0.01))
        if (enough is not None and valid >= enough) or epoch == 10:
            break
    return points


@pytest.fixture
def case(monkeypatch, tmp_path):
    args = argparse.Namespace(
        folder=tmp_path, epochs=0, precision="fp32", dgl=tmp_path, graphbolt="python", others=True,
        only=["sampling", "script"], seeds=2,
    )  # fmt: skip
    (tmp_path / "dgl").mkdir()
    monkeypatch.setattr(training_process, "find_spec", lambda name: None)
    case = Case(GRAPHS["wordnet"], 50, args)

    def built(name, *sets, tuned=True):
        train = {"schedule": "plateau", "lr": 1e-3, "epochs": 200}
        case.records[name] = SimpleNamespace(seconds=PREPROCESSING[name], train=train)
        return case.records[name]

    def job(kind, records, seed, **more):
        return {"kind": kind, "seed": seed, "epochs": case.epochs, "lr": 1e-2, **more}

    def trained(jobs, *, enough=None, floors=False, most=float("inf")):
        floor = {"operations": 1e9, "seconds": 0.25} if floors else None
        return {name: {"curve": curve_of(one, enough), "floor": floor, "epochs": []}
                for name, one in jobs.items()}  # fmt: skip

    for name, function in (("built", built), ("job", job), ("trained", trained)):
        monkeypatch.setattr(case, name, function)
    return case


def of(rows, what, peer=None):
    (row,) = [
        row for row in rows if row["what"].startswith(what) and peer in (None, row["peer"])
        and row["what"].endswith("seconds to accuracy")
    ]  # fmt: skip
    return row


def test_the_comparison_of_batches_alone_stands_first_and_has_no_target(case):
    rows = training.measured(case, case.args)["rows"]
    assert rows[0]["what"] == "batches alone: seconds to accuracy"
    assert (rows[0]["target"], rows[0]["met"]) == (None, None)
    # Both come to 0.8 in their fourth epoch.
    assert (rows[0]["ours"], rows[0]["peer_value"], rows[0]["ratio"]) == (4.0, 8.0, 2.0)
    assert rows[0]["accuracy"] == pytest.approx(0.8 - WITHIN)
    assert rows[0]["floor_an_epoch"] == [0.25, 0.25]
    assert rows[0]["without_validation"] == pytest.approx([3.6, 7.2])


def test_preprocessing_is_counted_apart_and_in_the_first_training(case):
    rows = training.measured(case, case.args)["rows"]
    own = of(rows, "each with what it precomputes")
    assert (own["ratio"], own["target"], own["met"]) == (2.0, 1.5, True)
    assert own["breaks_even"] == 2  # 8 s of preprocessing, 4 s gained a training
    first = rows[rows.index(own) + 1]
    assert (first["ours"], first["peer_value"]) == (12.0, 8.0)
    assert first["preprocessing"] == 8.0


def test_a_script_as_written_is_held_against_defaults_and_the_recipe(case):
    rows = training.measured(case, case.args)["rows"]
    for name in ("our defaults", "our recipe"):
        row = of(rows, f"a script as written against {name}")
        assert (row["ours"], row["peer_value"], row["ratio"]) == (4.0, 24.0, 6.0)
        assert (row["target"], row["met"]) == (8.0, False)


def test_other_batches_that_do_not_come_to_the_accuracy_have_no_value(case, capsys):
    rows = training.measured(case, case.args)["rows"]
    assert of(rows, "other batches", "full batch")["peer_value"] == 2.0
    assert of(rows, "other batches", "GraphBolt 2.1.0")["ratio"] == 3.0
    row = of(rows, "other batches", "SIGN")
    assert (row["peer_value"], row["ratio"], row["met"]) == (None, None, None)
    assert row["ends_after"][1] == pytest.approx(1.0)
    assert "installed" in of(rows, "other batches", "NeighborLoader")["missing"]
    training.table(rows)
    assert "not in 1.0" in capsys.readouterr().out


def test_every_side_of_the_chart_begins_after_its_preprocessing(case):
    sides = training.measured(case, case.args)["sides"]
    starts = {side: training._preprocessing(case, side) for side in sides}
    assert starts["ours, propagated"] == starts["our recipe"] == 8.0
    assert starts["DGL"] == starts["DGL's script"] == starts["SIGN"] == 0.0
    assert starts["cluster"] == 1.0
