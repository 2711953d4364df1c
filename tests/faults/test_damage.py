"""A flipped bit or a cut, in any file that is read back, is refused or changes nothing; none is
silent.

Here a seeded few on a small store; `python -m tests.bench.damage` does thousands on every kind of
run.
"""

import json

import pytest

from stockpot.store.digests import file_digest
from tests.bench.damage import struck
from tests.damage import RUNS, build, put, reads, targets


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    build(folder, ("cluster",))
    return folder


def test_a_few_of_every_kind_of_file(small):
    found = targets(small)
    assert {
        "run.json",
        "seen.json",
        "stat-cache.json",
        "checkpoint",
        "manifest.json",
        "zarr chunk",
    } <= {target.kind for target in found}
    counts, words = struck(found, 240, seed=1)
    assert not words
    assert sum(c["refused"] for c in counts.values()) > 200


def test_another_result_would_be_noticed(small, monkeypatch):
    """With the reader's own check gone a changed digit is silent, and the readers here give
    something else."""
    target = next(target for target in targets(small) if target.kind == "facts.json")
    sound, data = reads(target), target.path.read_bytes()
    listed = json.loads((target.path.parent / "manifest.json").read_bytes())["files"]["facts.json"][
        "digest"
    ]
    real = file_digest
    monkeypatch.setattr(
        "stockpot.store.reader.file_digest",
        lambda path: listed if path.name == "facts.json" else real(path),
    )
    digit = next(at for at in range(len(data)) if data[at : at + 1] in b"12345")
    put(target.path, data[:digit] + b"7" + data[digit + 1 :])
    try:
        found = reads(target)
    finally:
        put(target.path, data)
    assert found[0] not in ("!", sound[0])
    assert found[1] == "!", "verify reads by itself"


@pytest.mark.long
def test_some_of_every_kind_of_run(tmp_path):
    build(tmp_path, tuple(RUNS))
    counts, words = struck(targets(tmp_path), 1500, seed=2)
    assert not words
    assert len(counts) > 15
