import hashlib
import json

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.codec.format import Codec, decode
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import STAGE
from stockpot.stages.pack.build import subgraph
from stockpot.stages.pack.index import read_index
from stockpot.stages.pack.stage import Params
from stockpot.stages.partition.blocks import blocks
from stockpot.stages.quantize import STAGE as QUANTIZE
from tests.loaders import read_steps
from tests.memory import run_stage
from tests.packs import dense, features, inputs_of, packed

KINDS = {
    "plain": {},
    "directed": {"directed": True, "weighted": True},
    "bits": {"binary": True, "sparse": True},
}


def hops_of(a, outputs):
    """Breadth-first distance along in-edges (rows to columns), -1 where unreached."""
    hop = np.full(len(a), -1)
    hop[outputs] = 0
    front, h = outputs, 0
    while len(front):
        h += 1
        front = np.flatnonzero((a[front] != 0).any(axis=0) & (hop < 0))
        hop[front] = h
    return hop


@pytest.mark.parametrize("kind", KINDS)
def test_records_hold_exactly_the_induced_subgraphs(tmp_path, kind):
    reader, inputs = packed(tmp_path, **KINDS[kind])
    graph, source = inputs["graph"], inputs["records"]
    a, x = dense(graph), features(graph)
    part = inputs["partition"].arrays["part"]
    records = Records.from_reader(reader)
    codec = Codec.from_json(records.meta["codec"])
    dropped = 0
    for r, record in enumerate(records):
        nodes = source.arrays["n_id"][source.arrays["n_ptr"][r] : source.arrays["n_ptr"][r + 1]]
        span = slice(*source.arrays["out_ptr"][r : r + 2])
        outputs = source.arrays["outputs"][span]
        local = a[np.ix_(nodes, nodes)]
        hop = hops_of(local, np.searchsorted(nodes, np.sort(outputs)))
        kept = np.flatnonzero(hop >= 0)
        dropped += len(nodes) - len(kept)
        block = blocks(part[nodes], 8, 4)
        expected = nodes[sorted(kept, key=lambda i: (hop[i], block[i], nodes[i]))]
        np.testing.assert_array_equal(record.n_id, expected)
        np.testing.assert_array_equal(record.num_sampled_nodes, np.bincount(hop[kept]))
        row = 0
        for h in range(len(record.num_sampled_nodes)):
            for b in range(4):
                assert record.block_ptr[h, b] == row
                row += int(((hop == h) & (block == b)).sum())
            assert record.block_ptr[h, 4] == row
        full = a[np.ix_(record.n_id, record.n_id)]
        rows = np.repeat(np.arange(record.num_nodes), np.diff(record.indptr))
        found = np.zeros_like(full)
        found[rows, record.indices] = 1 if record.weight is None else record.weight
        np.testing.assert_array_equal(found, full if record.weight is not None else full != 0)
        assert all((np.diff(s) > 0).all() for s in np.split(record.indices, record.indptr[1:-1]))
        np.testing.assert_array_equal(record.deg, (a != 0).sum(1)[record.n_id])
        if kind == "directed":
            t = np.zeros_like(full)
            t[
                np.repeat(np.arange(record.num_nodes), np.diff(record.t_indptr)), record.t_indices
            ] = 1
            np.testing.assert_array_equal(t, (full != 0).T)
            np.testing.assert_array_equal(record.out_deg, (a != 0).sum(0)[record.n_id])
            np.testing.assert_allclose(record.deg_w, a.sum(1)[record.n_id], rtol=1e-6)
        else:
            assert (
                record.t_indptr
                is record.t_indices
                is record.out_deg
                is record.weight
                is record.deg_w
                is None
            )
        ids = dict(zip(outputs, source.arrays["input_id"][span], strict=True))
        hop0 = record.n_id[: record.num_outputs]
        np.testing.assert_array_equal(record.input_id, [ids[v] for v in hop0])
        np.testing.assert_array_equal(record.y, graph.arrays["y"][hop0])
        np.testing.assert_array_equal(
            decode(codec, record.codes, record.code_indptr), x[record.n_id]
        )
        assert not any(getattr(record, f).flags.writeable for f in ("n_id", "codes", "indices"))
    facts = reader.facts
    assert facts["dropped_nodes"] == dropped
    assert facts["rows"] == int(records.num_nodes.sum())
    assert facts["edges"] == int(records.num_edges.sum())
    assert facts["replication"] == facts["rows"] / 60
    assert len(records) == facts["records"] == 6


@given(
    seed=st.integers(0, 2**16), n=st.integers(1, 30), degree=st.integers(0, 4), k=st.integers(1, 5)
)
@settings(max_examples=40)
def test_subgraphs_of_random_directed_graphs(seed, n, degree, k):
    rng = np.random.default_rng(seed)
    a = rng.random((n, n)) < degree / n
    np.fill_diagonal(a, False)
    indptr = np.concatenate([[0], np.cumsum(a.sum(1))]).astype(np.int64)
    indices = np.nonzero(a)[1].astype(np.int32)
    nodes = np.sort(rng.choice(n, rng.integers(1, n + 1), replace=False)).astype(np.int32)
    outputs = rng.choice(nodes, rng.integers(1, len(nodes) + 1), replace=False).astype(np.int32)
    block = rng.integers(0, k, len(nodes)).astype(np.int32)
    local = np.full(n, -1, np.int32)
    for array in (nodes, outputs, indptr, indices):
        array.flags.writeable = False
    n_id, block_ptr, ptr, ids, t_ptr, t_ids, _, _ = subgraph(
        nodes, outputs, block, k, indptr, indices, np.zeros(0, np.float32), local
    )
    assert (local == -1).all()
    hop = hops_of(a[np.ix_(nodes, nodes)], np.searchsorted(nodes, np.sort(outputs)))
    assert set(n_id) == set(nodes[hop >= 0])
    full = a[np.ix_(n_id, n_id)]
    np.testing.assert_array_equal(ids, np.nonzero(full)[1])
    np.testing.assert_array_equal(np.diff(ptr), full.sum(1))
    np.testing.assert_array_equal(t_ids, np.nonzero(full.T)[1])
    np.testing.assert_array_equal(np.diff(t_ptr), full.sum(0))
    assert block_ptr[-1, -1] == len(n_id)
    assert block_ptr[0, -1] == len(outputs)


def test_a_record_is_one_range_of_the_file(tmp_path):
    reader, _ = packed(tmp_path)
    path = reader.path("shard-00000.arrow")
    index = read_index(reader.path("shard-00000.index.arrow"))
    data = path.read_bytes()
    file = pa.ipc.open_file(pa.BufferReader(data))
    meta = json.loads(file.schema.metadata[b"stockpot"])
    assert meta["format"] == 1
    assert meta["requires"] == ["codec:fp32"]
    assert (meta["form"], meta["task"], meta["directed"], meta["K"], meta["split"]) == (
        "nodes",
        "multiclass",
        False,
        4,
        "train",
    )
    assert meta["counts"] == {
        "records": 6,
        "outputs": 60,
        "nodes": reader.facts["rows"],
        "edges": reader.facts["edges"],
    }
    assert meta["inputs"]["partition"] == "7" * 32
    ends = index.offset + index.length
    np.testing.assert_array_equal(index.offset[1:], ends[:-1])
    assert file.num_record_batches == 6
    for i in range(6):
        part = data[index.offset[i] : ends[i]]
        assert google_crc32c.value(part) == index.crc32c[i]
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(part), file.schema)
        assert batch.equals(file.get_batch(i))
        assert batch.num_rows == 1
        assert sum(c.null_count for c in batch.columns) == 0
        batch.validate(full=True)
    assert all(not f.nullable and not f.type.value_field.nullable for f in file.schema)
    assert index.num_outputs.sum() == 60


def digests(root):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted((root / "pack").iterdir())
    }


def test_bytes_depend_on_nothing_but_the_inputs(tmp_path):
    for name in ("a", "b"):
        packed(tmp_path / name, shard_bytes=8000, weighted=True)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(digests(tmp_path / "a")) > 4
    # Another split into files changes files, not records.
    whole, _ = packed(tmp_path / "c", weighted=True)
    parts = Records.from_reader(
        run_stage(
            STAGE,
            Params("train", 4, 8000),
            inputs_of(tmp_path / "d", weighted=True),
            tmp_path / "d",
        )
    )
    for one, other in zip(Records.from_reader(whole), parts, strict=True):
        for field in one.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_shards_follow_from_counts_alone(tmp_path):
    inputs = inputs_of(tmp_path)
    shards = STAGE.shards(Params("train", 4, 8000), inputs)
    assert [s.start for s in shards[1:]] == [s.stop for s in shards[:-1]]
    assert (shards[0].start, shards[-1].stop) == (0, 6)
    assert [s.name for s in STAGE.shards(Params("train", 4, 1), inputs)] == [
        f"shard-{i:05d}" for i in range(6)
    ]
    assert len(STAGE.shards(Params("train"), inputs)) == 1


def test_facts_are_sums_and_maxima_over_all_shards(tmp_path):
    pack, _ = packed(tmp_path, shard_bytes=1)
    records = Records.from_reader(pack)
    counts = {"nodes": records.num_nodes, "edges": records.num_edges}
    assert len(records) == pack.facts["shards"] > 1
    assert (pack.facts["rows"], pack.facts["edges"]) == tuple(n.sum() for n in counts.values())
    assert (pack.facts["max_rows"], pack.facts["max_edges"]) == tuple(
        n.max() for n in counts.values()
    )
    assert all(n.max() > n[0] for n in counts.values())  # not those of the first


def test_the_projection_covers_what_is_written(tmp_path):
    inputs = inputs_of(tmp_path, features=64)
    cost = STAGE.cost(Params("train"), {role: reader.facts for role, reader in inputs.items()})
    reader = run_stage(STAGE, Params("train"), inputs, tmp_path / "pack")
    # Edges are projected from the whole graph, and rows before those that reach no output are
    # dropped.
    columns = ("n_id", "indptr", "deg", "indices", "y", "input_id", "codes")
    stored = sum(
        getattr(record, name).nbytes for record in Records.from_reader(reader) for name in columns
    )
    assert stored < cost.written < 4 * stored
    assert cost.peak > cost.written + 4 * 200


def test_records_without_edges_or_features_that_are_set(tmp_path):
    inputs = inputs_of(tmp_path, degree=0, features=300, binary=True)
    inputs["graph"].arrays["x"] = np.zeros((200, 300), np.float32)
    inputs["graph"].facts["x_nnz"] = 0
    params = QUANTIZE.resolve({"features.codec": "lossless"}, {"graph": inputs["graph"].facts})
    inputs["codes"] = run_stage(QUANTIZE, params, {"graph": inputs["graph"]}, tmp_path / "zero")
    reader = run_stage(STAGE, Params("train"), inputs, tmp_path / "pack")
    assert reader.facts["edges"] == 0
    assert reader.facts["rows"] == 60
    assert reader.facts["dropped_nodes"] == len(inputs["records"].arrays["n_id"]) - 60
    for step in read_steps(reader, layers=2, adj="norm", per_step=4):
        assert not step.x.any()
        assert step.num_sampled_nodes == (step.batch_size, 0, 0)
        assert torch.equal(step.adjs[0].csr.to_dense(), torch.eye(step.batch_size))
