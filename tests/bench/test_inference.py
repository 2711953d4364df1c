"""Rows of `make bench-inference` from figures by hand: no process is started, no peer is needed."""

import argparse
import json
from types import SimpleNamespace

import numpy as np

from tests.bench import inference, training_graphs
from tests.bench.training_case import Case


def test_inference_without_its_peer_has_rows_that_say_so(tmp_path, monkeypatch):
    out = tmp_path / "inference.json"
    words = ["inference", "--out", str(out), "--folder", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    inference.main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["target"] for row in rows] == [3.0, 3.0]
    assert all(row["met"] is None and "not installed" in row["missing"] for row in rows)


def test_rows_of_inference_take_the_smallest_size_near_exact_on_validation(monkeypatch, tmp_path):
    exact, near, far = 0.80, 0.798, 0.79
    sizes = {("records", 8): far, ("records", 16): near, ("dgl", 3): far, ("dgl", 5): exact}

    class Fixed:
        def __init__(self, case, name, kind, records, **more):
            self.name, self.built = name, {"run": 2.5}

        def job(self, kind, ids, size=0):
            return {"kind": kind, "size": size, "run": "run", "ids": ids.name}

    def turns(case, jobs, count):
        return {
            side: {
                "seconds": {"records": 0.5, "dgl": 2.0, "full": 3.0}[job["kind"]],
                "accuracy": sizes.get((job["kind"], job["size"]), exact),
            }
            for side, job in jobs.items()
        }

    args = argparse.Namespace(folder=tmp_path, epochs=0, precision="fp32", dgl=None)
    case = Case(training_graphs.GRAPHS["wordnet"], 50, args)
    monkeypatch.setattr(case, "built", lambda *_, **__: SimpleNamespace(run=None))
    graph = tmp_path / "graph.npz"
    np.savez(graph, test=np.arange(100, 400), valid=np.arange(100), y=np.zeros(1000))
    monkeypatch.setattr(inference, "peer_files", lambda *_: {"graph": str(graph)})
    monkeypatch.setattr(inference, "Weights", Fixed)
    monkeypatch.setattr(inference, "turns", turns)
    rows = inference.compared(case, 3)
    assert [row["dataset"] for row in rows] == ["wordnet 50 %"] * 4
    assert {(row["top_k"], row["fanout"]) for row in rows} == {(16, 5)}
    assert all((row["ratio"], row["met"], row["preprocessing"]) == (4.0, True, 2.5) for row in rows)
    some = np.load(tmp_path / "wordnet-50-one.npy")
    assert len(some) == 10
    assert set(some) <= set(range(100, 400))
    inference.table(rows)
