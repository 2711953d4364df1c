"""Store: what is committed opens and is checked, what is not is invisible, what is damaged is set
aside."""

import errno
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from stockpot.errors import BadInput, Conflict, Corrupt, CorruptArtifact, CorruptShard
from stockpot.execution.task import execute
from stockpot.stages.ingest.source import single_file
from stockpot.store import digests, fs
from stockpot.store.digests import StatCache, file_digest, payload_digest
from stockpot.store.manifest import build_manifest, seal, unseal
from stockpot.store.reader import SourceReader
from stockpot.store.store import Store
from tests.pipeline.store.toy import CountParams, build, damage, install, plan
from tests.runs import quarantines

if TYPE_CHECKING:
    from stockpot.stages.stage import Reader


@pytest.fixture
def built(tmp_path, monkeypatch):
    install(monkeypatch)
    key, _ = build(tmp_path / "store")
    return Store(tmp_path / "store"), key


def test_reader(built):
    store, key = built
    reader: Reader = store.open("count", key)
    assert list(reader.names()) == sorted(reader.names())
    assert "facts.json" in reader.names()
    assert "manifest.json" not in reader.names()
    assert reader.has("total")
    assert reader.has("lines/shard-0.txt")
    assert not reader.has("part-shard-0")
    assert reader.path("lines/shard-0.txt").is_absolute()
    assert reader.path("lines/shard-0.txt").read_text().startswith("0\n1")
    assert reader.key == key
    assert reader.digest == payload_digest(reader.manifest["files"])
    with pytest.raises(Conflict, match="no array 'nothing'"):
        reader.array("nothing")
    with pytest.raises(Conflict, match="no file 'nothing'"):
        reader.path("nothing")


def test_listing(built):
    store, key = built
    other, _ = build(store.root, params=CountParams(n=4))
    assert store.artifacts() == sorted([("count", key), ("count", other)])
    assert Store(store.root / "none").artifacts() == []
    assert Store(store.root / "none").work_in_progress(key) == {"shards": [], "progress": {}}
    assert quarantines(Store(store.root / "none")) == []
    assert not store.committed("count", "0" * 32)
    with pytest.raises(BadInput, match="no artifact count/000"):
        store.open("count", "0" * 32)
    with pytest.raises(BadInput, match="not an artifact"):
        store.open("../count", key)


def test_uncommitted_is_invisible(tmp_path, monkeypatch):
    install(monkeypatch)
    tasks = plan(tmp_path)
    for task in tasks[:-1]:
        execute(task)
        assert not Store(tmp_path).committed("count", task.key)
        assert Store(tmp_path).artifacts() == []
    assert Store(tmp_path).work_in_progress(tasks[0].key)["shards"] == ["shard-0", "shard-1"]


@pytest.mark.parametrize("how", ["truncate", "empty", "remove"])
def test_sizes_are_checked_on_open(built, how):
    store, key = built
    for name in store.open("count", key).names():
        path = store.folder("count", key) / name
        data = path.read_bytes()
        damage(path, how)
        with pytest.raises(CorruptArtifact, match=str(path)) as raised:
            store.open("count", key)
        assert (raised.value.stage, raised.value.key) == ("count", key)
        path.write_bytes(data)


def test_content_is_checked_on_read(built):
    store, key = built
    for name in store.open("count", key).names():
        path = store.folder("count", key) / name
        data = path.read_bytes()
        damage(path, "flip last")
        reader = store.open("count", key)
        with pytest.raises(CorruptArtifact, match=str(path)):
            read_everything(reader)
        path.unlink()
        path.write_bytes(data)
    read_everything(store.open("count", key))


def read_everything(reader):
    _ = reader.facts
    for name in reader.names():
        if name.endswith("/zarr.json"):
            reader.array(name.removesuffix("/zarr.json"))
        elif "/c/" not in name:
            reader.path(name)


def test_indexed_shards_are_left_to_their_reader(tmp_path, monkeypatch):
    from stockpot.store.reader import PayloadReader

    for name in ("shard-0.arrow", "shard-0.index.arrow", "predictions.arrow"):
        (tmp_path / name).write_bytes(b"abc")
    files = {p.name: {"size": 3, "digest": file_digest(p)} for p in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        path.write_bytes(b"abd")
    reader = PayloadReader(tmp_path, files, key="", digest="")
    assert reader.path("shard-0.arrow")
    for name in ("shard-0.index.arrow", "predictions.arrow"):
        with pytest.raises(Corrupt, match=name):
            reader.path(name)


def test_newer_format(built):
    store, key = built
    path = store.folder("count", key) / "manifest.json"
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(
        BadInput, match=r"format 99.*reads formats up to 1.*fix: upgrade stockpot"
    ) as raised:
        store.open("count", key)
    assert raised.value.exit_code == 2
    assert store.committed("count", key)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"check": 1}', "[" * 100_000, '{"format": NaN}', '{"format": "x"}'],
)
def test_mad_manifests(built, text):
    store, key = built
    (store.folder("count", key) / "manifest.json").write_text(text)
    with pytest.raises(CorruptArtifact):
        store.open("count", key)


def test_manifest_of_another_artifact(built):
    store, key = built
    other, _ = build(store.root, params=CountParams(n=4))
    data = (store.folder("count", other) / "manifest.json").read_bytes()
    (store.folder("count", key) / "manifest.json").write_bytes(data)
    with pytest.raises(CorruptArtifact, match=f"expected count/{key}, found count/{other}"):
        store.open("count", key)


def test_a_digest_that_is_not_that_of_the_files_is_refused_though_it_is_sealed(built):
    store, key = built
    path = store.folder("count", key) / "manifest.json"
    manifest = unseal(path.read_bytes(), path)
    path.write_bytes(seal({**manifest, "digest": "0" * 32}))
    with pytest.raises(CorruptArtifact, match="digest does not match its list of files"):
        store.open("count", key)


def test_quarantine_and_rebuild(built):
    store, key = built
    digest = store.open("count", key).digest
    aside = store.quarantine("count", key, "a test says so")
    assert aside is not None
    assert (aside / "reason.txt").read_text() == "a test says so\n"
    assert (aside / key / "manifest.json").exists()
    assert not store.committed("count", key)
    assert store.quarantine("count", key, "again") is None
    assert quarantines(store) == [aside]
    build(store.root)
    assert store.open("count", key).digest == digest


def test_damaged_artifact_met_by_its_own_task_is_rebuilt(built):
    store, key = built
    digest = store.open("count", key).digest
    damage(store.folder("count", key) / "facts.json", "truncate")
    _, results = build(store.root)
    assert results[-1].digest == digest
    assert not results[0].reused
    assert len(quarantines(store)) == 1


def test_clean_work(built, monkeypatch):
    store, key = built
    left = store.root / "work" / key / "shards"
    left.mkdir(parents=True)
    (left / "shard-0.json").write_text("{}")
    (store.root / "work" / ".removed-1").mkdir()
    busy = store.root / "work" / ("1" * 32)
    busy.mkdir()
    assert store.clean_work() == [key]
    assert [p.name for p in (store.root / "work").iterdir()] == [busy.name]


def test_writable(tmp_path):
    store = Store(tmp_path / "a" / "b")
    store.check_writable()
    assert list((store.root / "work").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="not a folder"):
        Store(tmp_path / "file").check_writable()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_unwritable(tmp_path, monkeypatch, code):
    def refuse(_name, path):
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(fs, "before", refuse)
    with pytest.raises(
        BadInput, match=rf"store {tmp_path}/s: cannot write .*; fix: .*--store DIR"
    ) as raised:
        Store(tmp_path / "s").check_writable()
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("links", [True, False])
def test_the_first_of_several_publishers_counts_and_each_is_told(tmp_path, monkeypatch, links):
    def refuse(_target, _source):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    target, claims = tmp_path / "target", tmp_path / "claims"
    offers = [tmp_path / name for name in ("first", "second", "third")]
    for offer in offers:
        offer.write_text(offer.name)
    assert [fs.publish(offer, target, claims) for offer in offers] == [True, False, False]
    assert target.read_text() == "first"
    placed = tmp_path / "placed"
    assert [fs.link_or_copy(offer, placed, tmp_path) for offer in offers] == [True, False, False]
    assert placed.read_text() == "first"


def test_stale_handles_are_tried_again(built, monkeypatch):
    store, key = built
    monkeypatch.setattr(fs, "STALE_WAIT_S", 0.001)
    real, fails = open, [3]

    def flaky(path, *args, **kwargs):
        if fails[0] and Path(path).name == "manifest.json":
            fails[0] -= 1
            raise OSError(errno.ESTALE, "stale", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", flaky)
    assert store.committed("count", key)
    fails[0] = 99
    with pytest.raises(OSError, match="stale"):
        store.committed("count", key)


def test_a_manifest_sums_what_shards_took_and_keeps_their_largest_peak():
    def entry(seconds, peak, size, started):
        files = {f"{size}": {"size": size, "digest": "0" * 32}}
        about = dict.fromkeys(("digest", "attempt", "device", "host"), "x")
        about |= {"notes": {}, "software": {}, "threads": size, "started": started}
        return {**about, "seconds": seconds, "peak_bytes": peak, "files": files}

    shards = {"a": entry(1.5, 700, 1, 20.0), "b": entry(2.0, 900, 3, 10.0), "c": entry(0, 0, 2, 30)}
    whole = ("stage", 1, "0" * 32, {}, [], {}, {}, shards)
    names = ("stage", "version", "key", "params", "parents", "files", "facts", "shards")
    found = build_manifest(**dict(zip(names, whole, strict=True)))
    figures = ("seconds", "peak_bytes", "bytes_written", "threads", "started")
    assert [found[name] for name in figures] == [3.5, 900, 6, 3, 10.0]


def test_sealed_documents():
    document = {"a": [1, 2.5, "x"], "b": None}
    assert unseal(seal(document), "p") == document
    with pytest.raises(Corrupt, match=r"p: .*check"):
        unseal(seal(document).replace(b"2.5", b"3.5"), "p")


def test_errors_survive_pickling():
    import pickle

    artifact = pickle.loads(pickle.dumps(CorruptArtifact("m", fix="f", stage="s", key="k")))
    assert (str(artifact), artifact.stage, artifact.key) == ("m; fix: f", "s", "k")
    shard = pickle.loads(pickle.dumps(CorruptShard("m", fix="f", key="k", shard="s")))
    assert (str(shard), shard.key, shard.shard) == ("m; fix: f", "k", "s")


def test_source_reader(tmp_path):
    path = tmp_path / "g.npz"
    np.savez(path, a=np.arange(3))
    reader = SourceReader(single_file(str(path), path), file_digest(path))
    assert reader.path("source") == path
    assert reader.key == reader.digest == file_digest(path)
    assert (reader.facts["kind"], reader.facts["bytes"]) == ("npz", path.stat().st_size)
    reader.check()
    damage(path, "flip")
    with pytest.raises(BadInput, match=r"g.npz: it changed since"):
        reader.check()
    path.unlink()
    with pytest.raises(BadInput, match=r"g.npz: cannot read it: No such file"):
        SourceReader(single_file(str(path), path), "0" * 32).path("source")


def aged(path, data):
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))


def test_stat_cache_skips_unchanged_files(tmp_path, monkeypatch):
    source, cache = tmp_path / "source", StatCache(tmp_path / "runs" / "stat-cache.json")
    aged(source, b"one")
    calls = []
    real = digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: calls.append(path) or real(path))
    assert cache.digest(source) == cache.digest(source) == real(source)
    assert (
        len(calls) == 2
    )  # a file this young may change again within the same time stamp, whatever its mtime says
    monkeypatch.setattr(digests, "SETTLED_NS", -(10**9))
    assert (
        cache.digest(source)
        == cache.digest(source)
        == StatCache(cache.path).digest(source)
        == real(source)
    )
    assert len(calls) == 2
    aged(source, b"three")
    assert cache.digest(source) == real(source)
    assert len(calls) == 3


def test_stat_cache_sees_a_file_rewritten_in_place_with_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_NS", -(10**9))
    source, cache = tmp_path / "source", StatCache(tmp_path / "stat-cache.json")
    aged(source, b"one")
    inode, first = source.stat().st_ino, cache.digest(source)
    time.sleep(0.02)  # a tick of the file system's clock
    aged(source, b"two")
    assert source.stat().st_ino == inode
    assert StatCache(cache.path).digest(source) == file_digest(source) != first


def test_stat_cache_of_an_older_version_is_not_read(tmp_path, caplog):
    source, cache = tmp_path / "source", StatCache(tmp_path / "stat-cache.json")
    aged(source, b"one")
    cache.path.write_text('{"format": 1, "files": {}, "check": ""}')
    with caplog.at_level(logging.WARNING, "stockpot"):
        assert cache.digest(source) == file_digest(source)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "files": {}}',
        '{"format": 2, "files": {}, "check": ""}',
        "[" * 100_000,
    ],
)
def test_stat_cache_damaged(tmp_path, caplog, text):
    source, cache = tmp_path / "source", StatCache(tmp_path / "stat-cache.json")
    aged(source, b"one")
    cache.digest(source)
    cache.path.write_text(text)
    with caplog.at_level(logging.WARNING, "stockpot"):
        assert cache.digest(source) == file_digest(source)
    assert "damaged" in caplog.text
    assert json.loads(cache.path.read_text())["files"]


def test_stat_cache_flipped_digest_is_not_believed(tmp_path, caplog):
    source, cache = tmp_path / "source", StatCache(tmp_path / "stat-cache.json")
    aged(source, b"one")
    digest = cache.digest(source)
    cache.path.write_text(cache.path.read_text().replace(digest, digest[::-1]))
    with caplog.at_level(logging.WARNING, "stockpot"):
        assert cache.digest(source) == digest


def test_stat_cache_shared(tmp_path):
    files = [tmp_path / str(i) for i in range(4)]
    for path in files:
        aged(path, path.name.encode())
    results = {}

    def work(n):
        cache = StatCache(tmp_path / "stat-cache.json")
        results[n] = [cache.digest(path) for path in files * 5]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [file_digest(path) for path in files * 5]
    assert all(found == expected for found in results.values())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_stat_cache_missing_source_and_unwritable_runs(tmp_path, caplog):
    with pytest.raises(BadInput, match="cannot read it: No such file"):
        StatCache(tmp_path / "c.json").digest(tmp_path / "none")
    source = tmp_path / "source"
    aged(source, b"x")
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "stockpot"):
        assert StatCache(tmp_path / "file" / "c.json").digest(source) == file_digest(source)
    assert "stat cache" in caplog.text
