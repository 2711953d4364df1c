"""Records of outputs without edges: what is in a file, who may read it, and that a model of rows
reads from them what it reads from any other record."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.loader import cooperative
from stockpot.stages.loader.data_batches import Batches
from stockpot.stages.loader.options import Form, Source
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import STAGE, schema
from stockpot.stages.pack.index import mismatch
from stockpot.stages.pack.stage import Params
from tests.loaders import read_steps, record_batches
from tests.memory import MemoryReader, run_stage
from tests.packs import features, inputs_of, packed

KINDS = {
    "fp32": {},
    "directed": {"directed": True, "weighted": True},
    "bits": {"binary": True, "sparse": True},
    "lossy": {"codec": "pq4", "nodes": 400, "features": 8, "tier": (0.1, 2)},
    "gathered": {"gather": True, "codec": "pq4", "nodes": 400, "features": 8},
}
EDGES = {"indptr", "indices", "t_indptr", "t_indices", "weight"}


def rows_of(inputs):
    """The same inputs of `pack`, whose records are their outputs alone."""
    records = inputs["records"]
    arrays = dict(records.arrays)
    out_ptr = arrays["out_ptr"]
    for r in range(len(out_ptr) - 1):  # as `influence` has them: rising inside a record
        span = slice(out_ptr[r], out_ptr[r + 1])
        order = np.argsort(arrays["outputs"][span])
        for name in ("outputs", "input_id"):
            arrays[name] = arrays[name].copy()
            arrays[name][span] = arrays[name][span][order]
    arrays |= {"n_id": arrays["outputs"].copy(), "n_ptr": out_ptr.copy()}
    facts = {**records.facts, "rows": len(arrays["n_id"]), "edgeless": True}
    found = {role: one for role, one in inputs.items() if role != "partition"}
    return {**found, "records": MemoryReader(arrays, facts, digest="6" * 32)}


def edgeless(root, *, gather=False, shard_bytes=64 << 20, **options):
    inputs = rows_of(inputs_of(root / "inputs", **options))
    reader = run_stage(STAGE, Params("train", 4, shard_bytes, gather), inputs, root / "pack")
    reader.key, reader.parents = "2" * 32, inputs
    return reader, inputs


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_that_it_has_no_edges_and_holds_no_column_of_any(tmp_path, kind):
    reader, inputs = edgeless(tmp_path, **KINDS[kind])
    records = Records.from_reader(reader)
    assert records.edgeless
    assert "edgeless" in records.meta["requires"]
    assert records.meta["format"] == 1
    assert "partition" not in records.meta["inputs"]
    names = set(records._opened()[0].schema.names)
    assert not names & EDGES
    assert {"n_id", "deg", "y", "input_id", "block_ptr"} <= names
    assert reader.facts["edges"] == reader.facts["max_edges"] == reader.facts["dropped_nodes"] == 0
    assert reader.facts["edgeless"]
    assert reader.facts["hops"] == reader.facts["replication"] == 1
    graph, nodes = inputs["graph"], inputs["graph"].facts["num_nodes"]
    seen = []
    for r, record in enumerate(records):
        span = slice(*inputs["records"].array("out_ptr")[r : r + 2])
        outputs = inputs["records"].array("outputs")[span]
        np.testing.assert_array_equal(record.n_id, outputs)
        np.testing.assert_array_equal(record.input_id, inputs["records"].array("input_id")[span])
        np.testing.assert_array_equal(record.y, graph.array("y")[outputs])
        np.testing.assert_array_equal(record.deg, np.diff(graph.array("indptr"))[outputs])
        assert (record.num_edges, record.indices.size) == (0, 0)
        assert record.indptr.tolist() == [0] * (len(outputs) + 1)
        # Blocks are equal ranges of ids.
        expected = [(outputs < nodes * b / 4).sum() for b in range(5)]
        assert record.block_ptr.tolist() == [expected]
        if graph.facts["weighted"]:
            sums = np.add.reduceat(
                np.append(graph.array("weight"), 0), graph.array("indptr")[:-1]
            ) * (np.diff(graph.array("indptr")) > 0)
            np.testing.assert_allclose(record.deg_w, sums[outputs], rtol=1e-5)
        seen.append(record.input_id)
    assert sorted(np.concatenate(seen).tolist()) == list(range(60))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_rows_are_those_of_any_record_of_the_same_outputs(tmp_path, kind):
    """Whatever else a record holds, a model of no layer that reads edges sees its outputs."""
    rows, inputs = edgeless(tmp_path / "rows", **KINDS[kind])
    plain, _ = packed(tmp_path / "plain", **KINDS[kind])
    order = {"layers": 0, "transposes": "none", "hag": True, "shuffle": False}
    for per_step in (1, 4):
        sides = [read_steps(side, **order, per_step=per_step) for side in (rows, plain)]
        for mine, theirs in zip(*sides, strict=True):
            assert mine.adjs == theirs.adjs == ()
            assert mine.batch_size == mine.x.shape[0] == theirs.x.shape[0]
            assert mine.num_sampled_nodes == (mine.batch_size,)
            at, there = torch.argsort(mine.n_id), torch.argsort(theirs.n_id)
            for name in ("n_id", "y", "input_id", "x"):
                assert torch.equal(getattr(mine, name)[at], getattr(theirs, name)[there]), name
    if kind in ("fp32", "directed"):
        (step,) = read_steps(rows, **order, per_step=6)
        np.testing.assert_array_equal(step.x.numpy(), features(inputs["graph"])[step.n_id.numpy()])


def test_shards_hold_the_same_records(tmp_path):
    one, _ = edgeless(tmp_path / "one")
    many, _ = edgeless(tmp_path / "many", shard_bytes=800)
    assert many.facts["shards"] > 1
    for mine, theirs in zip(Records.from_reader(one), Records.from_reader(many), strict=True):
        np.testing.assert_array_equal(mine.n_id, theirs.n_id)
        np.testing.assert_array_equal(mine.codes, theirs.codes)


def test_a_reader_that_does_not_know_of_it_refuses_the_file(tmp_path, monkeypatch):
    reader, _ = edgeless(tmp_path)
    monkeypatch.setattr(schema, "REQUIRES", schema.REQUIRES - {"edgeless"})
    with pytest.raises(BadInput, match="it requires edgeless, which this version does not know"):
        Records.from_reader(reader)[0]


def test_columns_of_edges_are_missed_where_nothing_says_that_there_are_none(tmp_path):
    reader, _ = edgeless(tmp_path)
    file = Records.from_reader(reader)._opened()[0]
    file.meta["requires"].remove("edgeless")
    with pytest.raises(Corrupt, match="columns of a record"):
        file.first_read(0, file.data.slice(int(file.index.offset[0]), int(file.index.length[0])))


def test_an_edge_in_the_index_of_a_record_without_any_is_found(tmp_path):
    reader, _ = edgeless(tmp_path)
    records = Records.from_reader(reader)
    index = records._opened()[0].index
    forged = replace(index, num_edges=index.num_edges + 1)
    assert mismatch(forged, 0, records[0]) == "edges: expected 1, found 0"


def test_models_that_read_edges_are_refused(tmp_path):
    reader, _ = edgeless(tmp_path)
    with pytest.raises(BadInput, match="expected records with edges") as error:
        read_steps(reader, layers=1)[0]
    assert "--set batches.method=node" in error.value.fix
    base = read_steps(reader, layers=2).assembler
    with pytest.raises(BadInput, match="a model of 2 layers that read edges"):
        cooperative.CooperativeAssembly(base, None, 0, 0)


def test_batches_of_ones_own_script_have_rows_and_nothing_that_stands_for_edges(tmp_path):
    reader, inputs = edgeless(tmp_path)
    records = Records.from_reader(reader)
    found = list(record_batches(records, per_step=2, shuffle=False))
    assert len(found) == 3
    for batch in found:
        assert set(batch.keys()) == {
            "x", "y", "n_id", "input_id", "num_sampled_nodes", "batch_size", "num_outputs_step"
        }  # fmt: skip
        np.testing.assert_array_equal(batch.x.numpy(), features(inputs["graph"])[batch.n_id])
    source = Source(records, "0" * 32, "train")
    for options in ({"trimmed": True}, {"as_": "edge_index"}):
        with pytest.raises(BadInput, match=r"no edges \(batches.method propagate\)"):
            next(iter(Batches(source, Form(2), **options)))


def test_its_files_are_arrow_that_others_read(tmp_path):
    reader, _ = edgeless(tmp_path)
    with pa.OSFile(str(reader.path("shard-00000.arrow"))) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.num_rows == 6
    assert len(table["n_id"][0]) == len(table["codes"][0]) == len(table["y"][0]) == 10
