"""verify: every kind of damage to every file is found and named; none is silent."""

import shutil

import pytest

from stockpot.store.store import Store
from stockpot.store.verify import verify_artifact, verify_store
from tests.pipeline.store.toy import CountParams, build, damage, install

KINDS = {
    "flip": "digest",
    "flip last": "digest",
    "zero": "digest",
    "truncate": "size",
    "empty": "size",
    "remove": "missing",
}


@pytest.fixture
def built(tmp_path, monkeypatch):
    install(monkeypatch)
    key, _ = build(tmp_path / "store")
    return Store(tmp_path / "store"), key


@pytest.mark.parametrize("how", KINDS)
def test_every_file(built, how):
    store, key = built
    folder = store.folder("count", key)
    assert verify_artifact(store, "count", key) == []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        damage(path, how)
        (finding,) = verify_artifact(store, "count", key)
        assert finding.file == str(path)
        if path.name != "manifest.json":
            assert finding.kind == KINDS[how]
        path.write_bytes(data)
    assert verify_store(store) == []


def test_every_byte_of_the_manifest(built):
    store, key = built
    path = store.folder("count", key) / "manifest.json"
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        assert len(verify_artifact(store, "count", key)) == 1, at
    path.write_bytes(data.replace(b"\n", b"\r\n"))
    assert verify_artifact(store, "count", key)


def test_swap_and_add(built):
    store, key = built
    folder = store.folder("count", key)
    a, b = folder / "values-shard-0/c/0", folder / "values-shard-1/c/0"
    left, right = a.read_bytes(), b.read_bytes()
    assert len(left) == len(right)
    a.write_bytes(right)
    b.write_bytes(left)
    assert [finding.file for finding in verify_artifact(store, "count", key)] == [str(a), str(b)]
    a.write_bytes(left)
    b.write_bytes(right)
    (folder / "stranger").write_text("x")
    (finding,) = verify_artifact(store, "count", key)
    assert (finding.kind, finding.file) == ("unexpected", str(folder / "stranger"))
    (folder / "stranger").unlink()
    a.unlink()
    a.symlink_to(b)
    assert len(verify_artifact(store, "count", key)) == 1
    a.unlink()
    a.mkdir()
    assert len(verify_artifact(store, "count", key)) == 1
    shutil.rmtree(a)
    a.write_bytes(left)
    assert verify_artifact(store, "count", key) == []


def test_whole_store_with_progress(built):
    store, key = built
    other, _ = build(store.root, params=CountParams(n=4))
    seen = []
    damage(store.folder("count", other) / "facts.json", "flip")
    findings = verify_store(store, progress=lambda *a: seen.append(a))
    assert [(finding.stage, finding.key) for finding in findings] == [("count", other)]
    assert [(done, total) for done, total, _ in seen] == [(1, 2), (2, 2)]
    assert verify_store(store, [("count", key)]) == []
    assert [f.kind for f in verify_artifact(store, "count", "0" * 32)] == ["missing"]
