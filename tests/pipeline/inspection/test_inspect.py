"""`inspect` counts from a record what brute force on the whole graph counts, and says what to type
where it cannot."""

import argparse
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.cli import parser
from stockpot.command import command
from stockpot.inspection.inspect_record import FIRST, record_document, record_text
from stockpot.inspection.target import Target
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.loader.records import Records
from tests.packs import dense, packed


@pytest.fixture(scope="module", params=[False, True], ids=["undirected", "directed weighted"])
def pack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    return packed(folder, shard_bytes=12000, directed=request.param, weighted=request.param)


@pytest.mark.parametrize("i", range(6))
def test_every_figure_against_brute_force(pack, i):
    reader, inputs = pack
    d = record_document(Target("pack:train", reader, i), "stockpot inspect r.toml")
    assert json.loads(json.dumps(d)) == d
    graph = dense(inputs["graph"]) > 0
    record = Records.from_reader(reader)[i]
    n_id = record.n_id
    inside = graph[np.ix_(n_id, n_id)]
    # hops: breadth first from the outputs, inside the record
    hop = np.where(np.arange(len(n_id)) < record.num_outputs, 0, -1)
    while (fresh := (hop < 0) & inside[hop == hop.max()].any(axis=0)).any():
        hop[fresh] = hop.max() + 1
    assert (hop >= 0).all()
    for h, found in enumerate(d["hops"]):
        rows = hop == h
        edges, degree = int(inside[rows].sum()), int(graph[n_id[rows]].sum())
        assert (found["hop"], found["nodes"], found["edges"]) == (h, rows.sum(), edges)
        assert found["edges_in_graph"] == degree
        assert found["held"] == (edges / degree if degree else None)
        assert found["outputs"] == (record.num_outputs if h == 0 else 0)
    assert len(d["hops"]) == hop.max() + 1
    assert d["held"] == inside.sum() / graph[n_id].sum()
    y = inputs["graph"].arrays["y"][n_id[: record.num_outputs]]
    assert d["labels"] == {str(c): int((y == c).sum()) for c in range(4) if (y == c).any()}
    assert d["unlabelled"] == (y < 0).sum()
    block = inputs["partition"].arrays["part"][n_id] * d["blocks"]["K"] // 8
    counts = np.bincount(block, minlength=d["blocks"]["K"])
    found = [d["blocks"][name] for name in ("held", "least_rows", "most_rows")]
    assert found == [(counts > 0).sum(), counts.min(), counts.max()]
    assert [h["blocks"] for h in d["hops"]] == [
        len(np.unique(block[hop == h])) for h in range(hop.max() + 1)
    ]
    assert len(d["outputs"]) == min(FIRST, record.num_outputs)
    for row, output in enumerate(d["outputs"]):
        assert output["n_id"] == n_id[row]
        assert output["label"] == (int(y[row]) if y[row] >= 0 else None)
        assert output["neighbours"] == inside[row].sum()
        assert output["neighbours_in_graph"] == graph[n_id[row]].sum()
        assert (
            inputs["records"].arrays["outputs"][
                list(inputs["records"].arrays["input_id"]).index(output["input_id"])
            ]
            == output["n_id"]
        )
    with open(d["file"], "rb") as file:
        file.seek(d["offset"])
        data = file.read(d["bytes"])
    import google_crc32c

    assert int(d["crc32c"], 16) == google_crc32c.value(data)
    assert sum(d["columns"].values()) < d["bytes"]
    assert d["code_bytes"] == d["columns"]["codes"] == d["num_nodes"] * d["codec"]["row_bytes"]


def test_the_text_holds_the_figures(pack):
    d = record_document(Target("pack:train", pack[0], 2), "")
    text = record_text(d)
    for hop in d["hops"]:
        line = next(line for line in text.splitlines() if line.startswith(f"{hop['hop']} "))
        for name in ("nodes", "outputs", "edges", "edges_in_graph", "blocks"):
            assert f"{hop[name]:,}" in line.split()
    for label, count in d["labels"].items():
        assert f"{label}: {count}" in text
    assert d["crc32c"] in text
    assert f"record   2 of {d['records']} (pack:train, split train)" in text
    assert all(line == line.rstrip() for line in text.splitlines())


@given(st.integers().filter(lambda i: not 0 <= i < 6))
def test_a_record_out_of_range_names_the_nearest(pack, i):
    with pytest.raises(BadInput, match=rf"expected --record in 0\.\.5, found {i};") as caught:
        record_document(Target("pack:train", pack[0], i), "stockpot inspect r.toml")
    assert caught.value.fix == f"stockpot inspect r.toml --record {0 if i < 0 else 5}"


def test_a_flipped_bit_is_not_shown(tmp_path):
    reader, _ = packed(tmp_path)
    place = Records.from_reader(reader).place(3)
    data = bytearray(place.path.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    place.path.write_bytes(data)
    with pytest.raises(Corrupt, match="crc32c"):
        record_document(Target("pack:train", reader, 3), "")
    assert record_document(Target("pack:train", reader, 2), "")["record"] == 2


@given(
    st.text(min_size=1).filter(lambda t: not t.startswith("-")),
    st.lists(st.text(min_size=1)),
    st.text(min_size=1).filter(lambda t: not t.startswith("-")),
)
def test_a_shown_command_parses_to_the_same(recipe, overrides, store):
    args = argparse.Namespace(recipe=recipe, set=overrides, store=Path(store), runs=Path("runs"))
    words = shlex.split(command(args, "run", "pack:train"))
    assert words[:2] == ["stockpot", "run"]
    if any(o.startswith("-") for o in overrides):
        return  # argparse itself takes these for options
    again = parser().parse_args(words[1:])
    assert (again.recipe, again.stages, again.set) == (recipe, ["pack:train"], overrides)
    assert (again.store, again.runs) == (Path(store), Path("runs"))
