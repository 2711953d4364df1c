import multiprocessing
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest

from stockpot.stages.errors import BadInput, Conflict, Corrupt
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack import shard
from stockpot.stages.pack.index import COLUMNS, mismatch, read_index, write_index
from stockpot.stages.pack.stage import Params as PackParams
from tests.memory import run_stage
from tests.packs import packed


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("pack"), shard_bytes=12000)[0]


@pytest.fixture
def paths(pack, tmp_path):
    """Files of a private copy of the artifact."""
    for name in pack.names():
        shutil.copy(pack.path(name), tmp_path / name)
    return sorted(p for p in tmp_path.iterdir() if not p.name.endswith(".index.arrow"))


def same(one, other):
    fields = one.__dataclass_fields__
    return all(
        np.array_equal(getattr(one, f), getattr(other, f))
        for f in fields
        if getattr(one, f) is not None
    )


def test_records_are_views_found_by_index(pack):
    records = Records.from_reader(pack)
    assert len(records) == 6
    assert len(records.paths) > 1
    assert same(records[-1], records[5])
    assert not same(records[0], records[1])
    base = records[0].codes
    while isinstance(base, np.ndarray):
        base = base.base
    assert base is not None  # the mapped file, no copy
    with pytest.raises(IndexError, match=r"record 6: expected one of 0\.\.5"):
        records[6]
    assert records.num_outputs.sum() == 60
    assert [r.num_nodes for r in records] == records.num_nodes.tolist()


def _read(records, queue):
    queue.put(float(sum(r.codes.sum(dtype=np.float64) for r in records)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_open_for_themselves(pack, method):
    records = Records.from_reader(pack)
    expected = float(sum(r.codes.sum(dtype=np.float64) for r in records))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_read, args=(records, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()
    assert same(pickle.loads(pickle.dumps(records))[2], records[2])


def test_every_flipped_bit_of_a_packed_file_is_found(paths):
    path = paths[0]
    data = path.read_bytes()
    index = read_index(path.with_name("shard-00000.index.arrow"))
    spans = [
        (0, int(index.offset[0])),
        *zip(index.offset, index.offset + index.length, strict=True),
    ]
    spans.append((int(index.offset[-1] + index.length[-1]), len(data)))
    rng = np.random.default_rng(0)
    for start, stop in spans:
        for at in {int(start), int(stop) - 1, *rng.integers(start, stop, 60).tolist()}:
            damaged = bytearray(data)
            damaged[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(Corrupt, match=rf"{path.name}.*; fix: "):
                list(Records(paths))


def test_every_flipped_bit_of_an_index_is_found_or_harmless(paths):
    path = paths[0].with_name("shard-00000.index.arrow")
    data, expected = path.read_bytes(), list(Records(paths))
    rng = np.random.default_rng(0)
    wrong = found = 0
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            # What no reader looks at (padding, the footer's own copy of the schema) may change;
            # values may not.
            wrong += not all(same(a, b) for a, b in zip(Records(paths), expected, strict=True))
        except (Corrupt, BadInput):
            found += 1
    assert wrong == 0
    assert found > 100


@pytest.mark.parametrize("how", ["truncated", "empty", "zeros", "longer", "missing"])
@pytest.mark.parametrize("which", ["shard-00000.arrow", "shard-00000.index.arrow"])
def test_damaged_files_are_named(paths, how, which):
    path = paths[0].with_name(which)
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        ends = {
            "truncated": data[: len(data) // 2],
            "empty": b"",
            "zeros": bytes(len(data)),
            "longer": data + b"\0",
        }
        path.write_bytes(ends[how])
    with pytest.raises(Corrupt, match=which.replace(".", r"\.")):
        list(Records(paths))


def test_a_swapped_record_is_found(paths):
    """Equal lengths, valid checksums of their own: the index still tells them apart."""
    index = read_index(paths[0].with_name("shard-00000.index.arrow"))
    records = Records(paths)
    assert mismatch(index, 0, records[0]) is None
    assert "expected" in mismatch(index, 1, records[0])


@pytest.mark.parametrize(
    ("name", "at", "forged"),
    [
        ("offset", 0, lambda old, _size: 0 * old),  # before the first record stands the magic
        ("offset", 1, lambda old, _size: old - 8),  # begins inside the record before
        ("length", 1, lambda old, _size: -old),  # ends before it begins
        ("length", -1, lambda _old, size: size),  # ends behind the file
    ],
)
def test_an_index_that_names_places_outside_the_file_is_refused(paths, name, at, forged):
    """Its own checksum is right: it was written so."""
    path = paths[0].with_name("shard-00000.index.arrow")
    index = read_index(path)
    rows = {column: getattr(index, column).copy() for column in COLUMNS}
    assert len(rows["offset"]) > 1
    rows[name][at] = forged(rows[name][at], index.meta["bytes"])
    write_index(path, index.meta, rows, index.label_counts)
    with pytest.raises(Corrupt, match="its index names places that are not in its"):
        list(Records(paths))


def test_errors_come_from_the_reader_that_knows_the_artifact(paths):
    class Named(Corrupt):
        pass

    records = Records(paths, corrupt=lambda message: Named(f"{message} (artifact pack/1)"))
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    with pytest.raises(Named, match=r"bytes, found .*artifact pack/1"):
        records[0]


def test_a_record_is_checked_once_a_process(paths, monkeypatch):
    import google_crc32c

    records = Records(paths)
    first = records[0]
    calls = []
    monkeypatch.setattr(google_crc32c, "value", lambda data: calls.append(data) or 0)
    assert same(records[0], first)
    assert not calls


def rewritten(pack, tmp_path, **meta):
    """The pack's first file written again with other metadata."""
    records = Records.from_reader(pack)
    count = len(read_index(pack.path("shard-00000.index.arrow")).offset)
    about = {k: v for k, v in records.meta.items() if k != "counts"} | {"records": count} | meta
    path = tmp_path / "shard-00000.arrow"
    shard.write_shard(
        path, tmp_path / "shard-00000.index.arrow", about, [records[i] for i in range(count)]
    )
    return Records([path]), [records[i] for i in range(count)]


@pytest.mark.parametrize(
    ("meta", "match"),
    [
        ({"format": 2}, "expected record format 1, found 2"),
        ({"requires": ["codec:fp32", "hag:2"]}, "requires hag:2, which this version does not know"),
        ({"form": "paths"}, "expected records of form nodes"),
        ({"task": "regression"}, "task multiclass, found nodes, regression"),
    ],
)
def test_what_a_newer_version_wrote_is_refused(pack, tmp_path, meta, match):
    records, _ = rewritten(pack, tmp_path, **meta)
    with pytest.raises(BadInput, match=match):
        records[0]


def test_unknown_columns_and_metadata_are_ignored(pack, tmp_path, monkeypatch):
    field = pa.field(
        "hag_levels", pa.list_(pa.field("item", pa.int32(), nullable=False)), nullable=False
    )
    schema_of, to_batch = shard.schema_of, shard.to_batch

    def widened(schema, record):
        known = pa.schema(list(schema)[1:], metadata=schema.metadata)
        return to_batch(known, record).add_column(0, field, pa.array([[1, 2]], field.type))

    monkeypatch.setattr(shard, "schema_of", lambda *about: schema_of(*about).insert(0, field))
    monkeypatch.setattr(shard, "to_batch", widened)
    records, expected = rewritten(pack, tmp_path, brand_new={"a": 1})
    assert all(same(a, b) for a, b in zip(records, expected, strict=True))


def test_files_of_different_artifacts_do_not_mix(pack, tmp_path):
    other, _ = packed(tmp_path, shard_bytes=12000, records={"seed": 5}, seed=3, features=8)
    with pytest.raises(Conflict, match="codec is"):
        Records([pack.path("shard-00000.arrow"), other.path("shard-00001.arrow")])[0]


def test_a_missing_file_is_not_a_shorter_split(paths):
    with pytest.raises(Conflict, match="expected 6 records, found"):
        len(Records(paths[:-1]))
    with pytest.raises(Conflict, match="expected record 0 first"):
        len(Records(paths[1:]))
    with pytest.raises(BadInput, match="at least one packed file"):
        Records([])


def test_rounds_stand_in_every_file(tmp_path):
    reader, inputs = packed(tmp_path, shard_bytes=12000, records={"rounds": 2})
    records = Records.from_reader(reader)
    assert (records.rounds, len(records)) == (2, 12)
    assert "rounds" in records.meta["requires"]
    for half in (range(6), range(6, 12)):
        found = np.concatenate([records[i].input_id for i in half])
        assert sorted(found.tolist()) == list(range(60))
    assert reader.facts["replication"] == pytest.approx(reader.facts["rows"] / 120)
    one, _ = packed(tmp_path / "one", shard_bytes=12000)
    assert Records.from_reader(one).rounds == 1
    assert "rounds" not in one.facts
    assert "rounds" not in Records.from_reader(one).meta
    unequal = inputs["records"]
    unequal.facts["rounds"] = 5
    broken = run_stage(PACK, PackParams("train", 4, 12000), inputs, tmp_path / "broken")
    with pytest.raises(Conflict, match="expected 5 rounds of equal size, found 12 records"):
        len(Records.from_reader(broken))
