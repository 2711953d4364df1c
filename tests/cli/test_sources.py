"""Bad input in a data set, through the command line: one line, exit code 2, nothing started."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stockpot.cli import main


def refused(capsys, source, verb="run"):
    code = main(
        [verb, "data.toml", "--set", f"dataset.source={source}", "--set", "resources.memory=100GB"]
    )
    text = capsys.readouterr().err
    assert code == 2, text
    assert text.count("\n") == 1, text
    assert text.startswith("stockpot: error: ")
    assert "fix:" in text
    return text


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.toml").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ogb:ogbn-arxiv", "missing in"),
        ("ogb:ogbn-arxif", "nearest is ogbn-arxiv"),
        ("ogbn:arxiv", "nearest is ogb"),
        ("synthetic:communities?inside=2", "inside: expected 0.0 to 1.0, found 2.0"),
    ],
)
def test_named_wrongly(folder, capsys, source, words):
    assert words in refused(capsys, source)
    assert not (folder / "runs/store").exists()


def test_a_plan_of_what_is_not_there(capsys):
    assert (
        main(
            [
                "plan",
                "data.toml",
                "--set",
                "dataset.source=ogb:ogbn-arxiv",
                "--set",
                "resources.memory=100GB",
            ]
        )
        == 0
    )
    assert "the data is not there yet" in capsys.readouterr().out


def test_named_nodes_from_end_to_end_and_a_ragged_row(folder, capsys):
    """The worker's error is the user's one line; the mapping is part of the artifact."""
    names = np.array([f"node {i:02d}" for i in range(20)])
    ring = {"source": names, "target": np.roll(names, 1)}
    (folder / "graph").mkdir()
    pq.write_table(pa.table(ring), folder / "graph/edges.parquet")
    pq.write_table(
        pa.table({"id": names[::-1], "label": np.arange(20) % 2}), folder / "graph/labels.parquet"
    )
    pq.write_table(pa.table({"x": np.ones(20), "id": names}), folder / "graph/features.parquet")
    words = ["data.toml", "--set", "dataset.source=files:graph", "--set", "resources.workers=1"]
    assert main(["run", *words[:1], "ingest", *words[1:]]) == 0
    (kept,) = folder.glob("runs/store/objects/ingest/*/node_ids.arrow")
    with pa.ipc.open_file(kept) as file:
        assert file.read_all()["id"].to_pylist() == names.tolist()
    (folder / "graph/edges.parquet").unlink()
    (folder / "graph/edges.csv").write_text("source,target\nnode 00,node 01\nnode 02\n")
    capsys.readouterr()
    assert "edges.csv: row 3: expected 2 fields, found 1: node 02" in refused(capsys, "files:graph")


def test_stages_that_need_no_features_build_without_them(folder, capsys):
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
    np.savez("bare.npz", edge_index=edges, num_nodes=4, y=np.array([0, 1, 0, 1]))
    words = ["data.toml", "ingest", "partition", "--set", "dataset.source=npz:bare.npz"]
    assert main(["run", *words]) == 0
    assert (
        "the report leaves out what was not asked for: dataset: expected node features"
        in capsys.readouterr().out
    )
    assert "node features" in refused(capsys, "npz:bare.npz")
