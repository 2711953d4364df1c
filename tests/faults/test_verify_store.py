"""`verify`: what is missing is named, damage is told before it is set aside, what may not be read
is no damage."""

import json

import pytest

from stockpot import cli
from stockpot.errors import BadInput
from stockpot.store.run_folder import dump, run_document
from stockpot.store.store import Store
from stockpot.store.verify import verify_artifact, verify_run
from tests.pipeline.store.toy import build, damage, install

TABLES = {"train": {"epochs": 3}}


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    """(store, key, verify): an artifact, a run that opens it, and `stockpot verify`'s (exit code,
    output, errors)."""
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    key, _ = build(tmp_path / "runs/store")
    store = Store(tmp_path / "runs/store")
    (tmp_path / "runs/toy").mkdir()
    artifacts = {"count": ("count", key, "0" * 32)}
    (tmp_path / "runs/toy/run.json").write_text(
        dump(run_document("toy", TABLES, store.root, artifacts))
    )

    def verify(*words):
        code = cli.main(["verify", "--all", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return store, key, verify


def test_an_artifact_that_a_run_opens_and_the_store_lacks_is_named(made, tmp_path):
    store, key, verify = made
    assert verify()[:2] == (0, "1 of 1 artifacts in runs/store are sound\n")
    store.folder("count", key).rename(tmp_path / "gone")
    code, out, err = verify()
    assert (code, out) == (0, "0 of 0 artifacts in runs/store are sound, 1 more is missing\n")
    assert f"count/{key}" in err
    assert "missing: count of the run runs/toy" in err
    assert [f["kind"] for f in json.loads(verify("--json")[1])["missing"]] == ["absent"]
    (finding,) = verify_run(store, tmp_path / "runs/toy")
    assert (finding.stage, finding.key, finding.kind) == ("count", key, "absent")
    assert verify_run(Store(tmp_path / "other"), tmp_path / "runs/toy") == [], (
        "a run of another store"
    )
    damage(tmp_path / "runs/toy/run.json", "truncate")
    damage(tmp_path / "runs/toy/run.json", "truncate")
    (finding,) = verify_run(store, tmp_path / "runs/toy")
    assert finding.kind == "run"


def test_damage_is_told_where_it_cannot_be_set_aside(made, monkeypatch):
    store, key, verify = made
    damage(store.folder("count", key) / "facts.json", "flip")
    for error in (
        BadInput("store runs/store: cannot write: the file system is read-only"),
        OSError(16, "busy"),
    ):

        def refuse(*_args, error=error):
            raise error

        monkeypatch.setattr(Store, "quarantine", refuse)
        code, _, err = verify()
        told, aside = err.splitlines()
        assert code == 1
        assert "facts.json: expected digest" in told
        assert "could not be set aside: " in aside
    assert store.folder("count", key).exists()


def test_what_may_not_be_read_is_one_line_and_no_damage(made, monkeypatch):
    store, key, verify = made

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("stockpot.store.verify.file_digest", refuse)
        assert {f.kind for f in verify_artifact(store, "count", key)} == {"unreadable"}
        code, _, err = verify()
        assert code == 2
        assert "cannot be read: Permission denied" in err
        patch.setattr("stockpot.store.reader.file_digest", refuse)
        with pytest.raises(BadInput, match="cannot be read: Permission denied") as caught:
            store.open("count", key).path("facts.json")
        assert caught.value.exit_code == 2
        patch.setattr("stockpot.store.store.os.listdir", refuse)
        code, _, err = verify()
        assert (code, err.count("\n")) == (2, 1)
        assert "cannot be read: Permission denied" in err
    assert store.folder("count", key).exists()
    for name in ("manifest.json", "facts.json"):
        path = store.folder("count", key) / name
        data = path.read_bytes()
        path.unlink()
        path.mkdir()
        assert store.committed("count", key)
        assert verify("--keep")[0] == 1
        path.rmdir()
        path.write_bytes(data)
    assert verify("--store", "runs/typo")[0] == 2
    assert verify()[0] == 0
