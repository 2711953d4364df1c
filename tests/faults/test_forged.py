"""A valid seal over nonsense: whoever can write to a store gets errors of a known type, one line,
and no memory."""

import contextlib
import json
import random
import resource

import numpy as np
import pytest

from stockpot import cli, open_batches
from stockpot.errors import Corrupt
from stockpot.inspection.inspect_artifact import artifact_document, artifact_text
from stockpot.inspection.target import Target
from stockpot.stages.errors import StockpotError
from stockpot.stages.train.model import build_model, load_model, save_model
from stockpot.stages.train.state import read_state, write_state
from stockpot.store.digests import bytes_digest, file_digest, payload_digest
from stockpot.store.forms import inside
from stockpot.store.manifest import seal
from stockpot.store.store import Store
from stockpot.store.verify import verify_artifact
from tests.damage import build, put, targets
from tests.pipeline.store.toy import build as toy
from tests.pipeline.store.toy import install

NONSENSE = (
    None,
    True,
    -1,
    2**37 - 1,
    2**40,
    2**70,
    1e308,
    "x",
    "../../etc/passwd",
    "a\x1b[2J",
    [],
    {},
    [[]],
    {"a": {}},
)


@pytest.fixture
def made(tmp_path, monkeypatch):
    install(monkeypatch)
    key, _ = toy(tmp_path / "store")
    return Store(tmp_path / "store"), key


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forged")
    build(folder, ("cluster",))
    return folder


def places(value, at=()):
    """Paths of everything in a JSON document."""
    found = [at]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, item in items:
        found += places(item, (*at, name))
    return found


def changed(document, rng):
    """The document with one thing replaced by nonsense, or left out."""
    document = json.loads(json.dumps(document))
    *above, last = rng.choice([place for place in places(document) if place])
    inner = document
    for name in above:
        inner = inner[name]
    if rng.random() < 0.2:
        del inner[last]
    else:
        inner[last] = rng.choice(NONSENSE)
    return document


def resealed(path, document):
    """Write a manifest with a valid check, and where it can have one a valid digest."""
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        document["digest"] = payload_digest(document["files"])
    put(path, seal(document))


def used(store, stage, key):
    """All of an artifact read in every way."""
    verify_artifact(store, stage, key)
    opened = store.open(stage, key)
    artifact_text(artifact_document(Target(f"{stage}/{key}", opened)))
    arrays = [
        name.removesuffix("/zarr.json") for name in opened.names() if name.endswith("/zarr.json")
    ]
    return (
        opened.facts,
        [opened.array(name).shape for name in arrays],
        [opened.path(n) for n in opened.names()],
    )


def test_manifests_of_nonsense_are_refused_by_type(made):
    store, key = made
    path = store.folder("count", key) / "manifest.json"
    document, rng = json.loads(path.read_bytes()), random.Random(0)
    document.pop("check")
    used(store, "count", key)
    refused = 0
    for _ in range(400):
        resealed(path, changed(document, rng))
        try:
            used(store, "count", key)
        except StockpotError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    "name",
    ["../stolen", "/etc/passwd", "a/../../b", "", ".", "a//b", "./a", "a\0b", "manifest.json"],
)
def test_a_manifest_that_names_files_outside_its_folder_is_refused(made, name):
    store, key = made
    folder = store.folder("count", key)
    (folder.parent / "stolen").write_bytes(b"x")
    document = json.loads((folder / "manifest.json").read_bytes())
    document.pop("check")
    document["files"][name] = {"size": 1, "digest": bytes_digest(b"x")}
    resealed(folder / "manifest.json", document)
    assert name == "manifest.json" or not inside(name)
    with pytest.raises(Corrupt, match="no file of its folder"):
        store.open("count", key)
    (finding,) = verify_artifact(store, "count", key)
    assert finding.kind == "manifest"


@pytest.mark.parametrize("what", ["", "total", "total/c/0", "manifest.json", "lines/shard-0.txt"])
def test_links_are_refused(made, tmp_path, what):
    store, key = made
    path = store.folder("count", key) / what
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(Corrupt, match="link"):
        store.open("count", key)
    kinds = [finding.kind for finding in verify_artifact(store, "count", key)]
    assert kinds == ["link"] if what in ("", "manifest.json") else kinds
    moved = store.quarantine("count", key, "a link")
    assert moved is not None
    assert elsewhere.exists(), "what a link shows is not touched"


def test_a_stage_that_is_a_link_out_of_the_store_is_refused_and_left(made, tmp_path):
    store, key = made
    stage = store.folder("count", key).parent
    stage.rename(tmp_path / "elsewhere")
    stage.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StockpotError, match="found a link to") as caught:
        store.open("count", key)
    assert caught.value.exit_code == 2
    assert [f.kind for f in verify_artifact(store, "count", key)] == ["unreadable"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [2**40]),
        ("shape", [2**62, 2**62]),
        ("shape", [-1]),
        ("shape", ["12"]),
        ("shape", 12),
        ("shape", []),
        ("chunk_grid", {"configuration": {"chunk_shape": [2**40]}}),
        ("chunk_grid", {"configuration": {"chunk_shape": [0]}}),
        ("chunk_grid", None),
        ("data_type", "float128"),
        ("data_type", ["int32"]),
    ],
)
def test_declared_sizes_are_held_against_the_bytes_before_anything_is_allocated(made, field, value):
    store, key = made
    folder = store.folder("count", key)
    document = json.loads((folder / "manifest.json").read_bytes())
    document.pop("check")
    metadata = json.loads((folder / "total/zarr.json").read_bytes()) | {field: value}
    put(folder / "total/zarr.json", json.dumps(metadata).encode())
    size, digest = (
        (folder / "total/zarr.json").stat().st_size,
        file_digest(folder / "total/zarr.json"),
    )
    document["files"]["total/zarr.json"] = {"size": size, "digest": digest}
    resealed(folder / "manifest.json", document)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Corrupt, match=r"total/zarr\.json"):
        store.open("count", key).array("total")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_models_of_other_sizes_are_refused_before_they_are_made(tmp_path):
    config = {
        "model": "gcn",
        "num_features": 4,
        "hidden": 4,
        "num_classes": 2,
        "layers": 2,
        "dropout": 0.5,
    }
    path = tmp_path / "model.safetensors"
    save_model(path, build_model(config, seed=0), {})
    state, metadata = read_state(path)
    load_model(path)
    for name, value in [
        ("hidden", 2**40),
        ("layers", 0),
        ("hidden", "x"),
        ("model", None),
        ("num_classes", -1),
    ]:
        write_state(path, state, metadata | {"config": metadata["config"] | {name: value}})
        with pytest.raises(StockpotError):
            load_model(path)
    write_state(path, state, {})
    with pytest.raises(Corrupt, match="configuration"):
        load_model(path)


def test_facts_of_nonsense_are_refused_by_every_command(small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    rng = random.Random(1)
    files = [t.path for t in targets(small) if t.kind == "manifest.json"]
    where = ["--store", "store", "--runs", "runs"]
    assert cli.main(["plan", "cluster.toml", "pack", *where]) == 0
    for _ in range(60):
        path = rng.choice(files)
        data = path.read_bytes()
        document = json.loads(data)
        document.pop("check")
        resealed(
            path, document | {"facts": changed({"facts": document["facts"]}, rng).get("facts", {})}
        )
        try:
            capsys.readouterr()
            for words in (
                ["plan", "cluster.toml", "pack", *where],
                ["status", "cluster.toml", *where],
            ):
                code = cli.main(words)
                said = capsys.readouterr().err.splitlines()
                assert code in (0, 1, 2)
                errors = [line for line in said if line.startswith("stockpot: error")]
                assert len(errors) == (code > 0)
                assert not [
                    line
                    for line in errors
                    if ": error: " in line and "Error:" in line.split(":")[2]
                ], errors
            try:
                for batch in open_batches("runs/cluster", prefetch=0):
                    assert np.isfinite(batch.x.numpy()).all()
            except StockpotError:
                pass
        finally:
            put(path, data)
    assert not (small / "runs/error.log").exists()
