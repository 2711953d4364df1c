"""`plan` and `run` say the same of a bad data set: the same line, the same exit code, whatever is
wrong with it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stockpot.cli import main
from tests.pipeline.execution.test_cluster_tcp import InProcess

N = 20
RNG = np.random.default_rng(0)
GRAPH = {
    "edge_index": RNG.integers(0, N, (2, 60)),
    "x": RNG.normal(size=(N, 3)).astype(np.float32),
    "y": np.arange(N) % 3,
}


def at(values, index, value):
    found = np.array(values, np.float64)
    found[index] = value
    return found


def folder(name, edges="source,target\n0,1\n1,2\n", **files):
    Path(name).mkdir()
    np.save(f"{name}/labels.npy", GRAPH["y"])
    Path(name, "edges.csv").write_text(edges)
    for file, values in files.items():
        np.save(f"{name}/{file}.npy", values)
    return f"files:{name}"


def npz(**changes):
    np.savez(
        "graph.npz",
        **{name: values for name, values in (GRAPH | changes).items() if values is not None},
    )
    return "npz:graph.npz"


def no_zip():
    Path("graph.npz").write_text("text")
    return "npz:graph.npz"


def pandas_index():
    folder("f")
    about = {
        "index_columns": ["__index_level_0__"],
        "columns": [],
        "column_indexes": [],
        "pandas_version": "2.2",
    }
    table = pa.table({"c": np.ones(N), "__index_level_0__": np.arange(N)[::-1]})
    pq.write_table(
        table.replace_schema_metadata({b"pandas": json.dumps(about).encode()}), "f/features.parquet"
    )
    return "files:f"


BAD = {
    "no file": (lambda: "npz:nowhere.npz", "expected a file at"),
    "no zip": (no_zip, "expected a readable npz file"),
    "unknown name": (lambda: npz(edge_weihgt=np.ones(60)), "nearest is edge_weight"),
    "edge features": (
        lambda: npz(edge_attr=np.ones((60, 2))),
        "features of edges are not available",
    ),
    "no edges": (lambda: npz(edge_index=None), "edge_index: expected this member"),
    "an id too large": (
        lambda: npz(edge_index=np.full((2, 60), N)),
        "expected node ids from 0 to 19, found 20",
    ),
    "only loops": (
        lambda: npz(edge_index=np.tile(np.arange(N), (2, 1))),
        "no edges but self-loops",
    ),
    "weights": (lambda: npz(edge_weight=at(np.ones(60), 7, -1)), "found -1.0 at edge 7"),
    "NaN": (lambda: npz(x=at(GRAPH["x"], (4, 1), np.nan)), "found nan at node 4, column 1"),
    "too large": (
        lambda: npz(x=at(GRAPH["x"], (4, 1), 1e30)),
        "expected features from -1e+15 to 1e+15",
    ),
    "multi-label": (lambda: npz(y=np.ones((N, 4), int)), "multi-label targets are not available"),
    "half a split": (
        lambda: npz(train_mask=np.ones(N, bool)),
        "val_mask: expected this member beside train_mask",
    ),
    "no label": (
        lambda: npz(y=at(GRAPH["y"], 19, -1), train_idx=[0], val_idx=[1], test_idx=[19]),
        "test: expected at least one labelled node",
    ),
    "two nodes": (
        lambda: npz(y=at(np.full(N, -1), [0, 1], 0)),
        (
            "dataset.split: valid: expected at least one node, found an empty split of 2 labelled "
            "nodes"
        ),
    ),
    "float ids": (lambda: folder("f", "source,target\n0.0,1.0\n"), "floats (1.0 for 1)"),
    "another row": (
        lambda: folder("f", "source,target\n0,1\n2\n"),
        "row 3: expected 2 fields, found 1",
    ),
    "an id in a csv": (lambda: folder("f", "source,target\n0,1\n0,20\n"), "found 20 at edge 1"),
    "a file more": (lambda: folder("f", extra=np.ones(3)), "extra.npy: expected a known name"),
    "half a split of files": (
        lambda: folder("f", train=np.arange(3)),
        "expected valid.npy beside train.npy",
    ),
    "rows": (
        lambda: folder("f", features=np.ones((3, 2))),
        "expected 20 rows, one a node, found 3",
    ),
    "pandas": (pandas_index, "expected pandas' index to number the rows"),
    "ogb": (lambda: "ogb:ogbn-arxif", "nearest is ogbn-arxiv"),
}


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr("stockpot.execution.run.LocalWorkers", InProcess)


@pytest.mark.parametrize("case", BAD)
def test_plan_says_what_run_says(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write, words = BAD[case]
    (tmp_path / "data.toml").write_text(
        f'[dataset]\nsource = "{write()}"\n[resources]\nmemory = "100GB"\n'
    )
    said = []
    for verb in ("plan", "run"):
        assert main([verb, "data.toml", "split"]) == 2
        captured = capsys.readouterr()
        said.append(captured.err)
    assert said[0] == said[1]
    assert said[0].count("\n") == 1
    assert words in said[0]
    assert "; fix: " in said[0]
    assert not list(tmp_path.glob("runs/store/objects/split/*"))


def test_a_sound_source_is_planned_and_read_once_more_at_most(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.toml").write_text(f'[dataset]\nsource = "{npz(edge_type=np.zeros(60))}"\n')
    assert main(["plan", "data.toml", "split"]) == 0
    assert "dataset.source npz:graph.npz: left out: edge_type" in capsys.readouterr().out
    assert main(["run", "data.toml", "split"]) == 0
    assert "left out of the data set: edge_type" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/data/summary.json").read_text())["dataset"]["left_out"] == [
        "edge_type"
    ]
    monkeypatch.setattr(
        "stockpot.stages.ingest.check.check_dataset", lambda *a: pytest.fail("it is built")
    )
    assert main(["plan", "data.toml", "split"]) == 0
