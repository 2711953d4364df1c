"""What ranks tell each other: JSON that comes back as it was, or is refused; no byte that arrives
is ever run."""

import ast
import pickle
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from torch.distributed import HashStore

from stockpot.errors import CorruptArtifact
from stockpot.execution import ranks
from stockpot.execution.job import RunError
from stockpot.stages.errors import BadInput, Conflict, StockpotError
from stockpot.stages.processes import process_group as team
from stockpot.stages.processes import rendezvous as meeting
from stockpot.stages.processes.messages import (
    decoded,
    encoded,
    error_of,
    message,
    name_of,
    named,
    received,
    told,
)
from stockpot.stages.processes.process_group import Job, Team, led
from stockpot.stages.train.evaluate import Score
from tests.coop_ranks import sums

ROOT = Path(__file__).resolve().parents[3]
SECRET = bytes(range(32))


@dataclass(frozen=True)
class Params:
    rates: tuple[float, ...]
    folder: Path | None
    more: dict[str, list[int]]


class Bomb:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def job(port=1):
    return Job({"port": port}, SECRET.hex(), 3, "tests.coop_ranks:sums", {}, "cpu", {})


def test_values_come_back_as_they_were():
    value = {
        "params": Params((1.5, 2.0), Path("/a b"), {"is": [1, 2]}),
        "is": "path",
        "n": None,
        "t": ((1,), "x", True),
    }
    assert decoded(encoded(value)) == value
    assert named(name_of(Params)) is Params
    for strange in (object(), {1: 2}, b"bytes", {"f": print}):
        with pytest.raises(TypeError):
            encoded(strange)


@pytest.mark.parametrize(
    "value",
    [
        {"is": "call", "name": "os:system"},
        {"is": "dataclass", "name": "os:system", "fields": {}},
        {"is": "dataclass", "name": "builtins:eval", "fields": {"x": "1"}},
        {"is": "dataclass", "name": "no.such:thing", "fields": {}},
        {"is": ["path"]},
        {"path": "x"},
        {"is": "dict", "items": 7},
    ],
)
def test_nothing_but_the_known_kinds_is_made(value):
    with pytest.raises(Conflict):
        decoded(value)


@pytest.mark.parametrize(
    "error",
    [
        StockpotError("broken", fix="mend it"),
        CorruptArtifact("a bit", fix="run", stage="pack", key="0" * 32),
        RunError("no", trace="line 1"),
    ],
)
def test_errors_come_back_as_they_were(error):
    found = error_of(told(error))
    assert type(found) is type(error)
    assert vars(found) == vars(error)
    assert str(found) == str(error)


@pytest.mark.parametrize(
    "document", [None, {}, {"class": "os:system", "message": "x", "fix": None, "more": {}}, []]
)
def test_an_error_of_no_known_class_is_one_of_words(document):
    assert type(error_of(document)) is StockpotError


def test_messages_of_others_are_refused(tmp_path):
    data = message(SECRET, "job/1", {"a": [1]})
    assert received(SECRET, "job/1", data) == {"a": [1]}
    bomb = pickle.dumps(Bomb(tmp_path / "fell"))
    other = message(bytes(32), "job/1", {"a": [1]})
    altered = data.replace(b"1", b"2", 1)
    for place, forged in (
        ("job/2", data),
        ("job/1", other),
        ("job/1", altered),
        ("job/1", bomb),
        ("job/1", b"[1]"),
    ):
        with pytest.raises(Conflict, match="not from a rank of this run"):
            received(SECRET, place, forged)
    assert not (tmp_path / "fell").exists()


def test_rank_0_refuses_an_error_that_no_rank_left(tmp_path):
    store = HashStore()
    team.raised(store, 2, BadInput("its own"), job())
    assert str(team._raised(store, job())) == "its own"
    assert "message at raised/" in str(team._raised(store, job(port=2)))  # of another training
    store.set("raised/1", pickle.dumps(Bomb(tmp_path / "fell")))
    assert isinstance(team._raised(store, job()), Conflict)
    assert not (tmp_path / "fell").exists()


def test_a_rank_of_a_launcher_refuses_a_job_that_rank_0_did_not_set(tmp_path, monkeypatch):
    store, started = HashStore(), []
    monkeypatch.setattr(meeting, "launcher_store", lambda: store)
    monkeypatch.setattr(team, "launched", lambda rank, job: started.append((rank, job)))
    monkeypatch.setattr(ranks, "_reap", lambda _members: store.set(ranks._done_key(), b"1"))
    monkeypatch.setattr(ranks, "place", lambda: (0, 2))
    monkeypatch.setattr(ranks, "SECRET_WITHIN_S", 0.1)
    number = f"{meeting.jobs_key()}/1"
    with ranks._shared_secret(tmp_path):
        (file,) = (tmp_path / "work").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        secret = ranks.os.environ.pop(meeting.SECRET)  # the other rank has its own environment
        store.set(number, message(bytes.fromhex(secret), number, vars(job()) | {"secret": ""}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                ranks,
                "_reap",
                lambda members: (members.clear(), store.set(ranks._done_key(), b"1")),
            )
            assert ranks.served(1, tmp_path) == 0
        assert [(rank, one.secret) for rank, one in started] == [(1, secret)]
        store.delete_key(ranks._done_key())
        for forged in (pickle.dumps(Bomb(tmp_path / "fell")), message(SECRET, number, vars(job()))):
            store.set(number, forged)
            with pytest.raises(Conflict, match="not from a rank of this run"):
                ranks.served(1, tmp_path)
        for name in ("../../etc/passwd", ".ranks-" + "0" * 32):
            store.set(ranks._secret_key(), name)
            with pytest.raises(Conflict, match="no secret of this run"):
                ranks.served(1, tmp_path)
        ranks.os.environ[meeting.SECRET] = secret
    assert not file.exists()
    assert meeting.SECRET not in ranks.os.environ
    assert len(started) == 1
    assert not (tmp_path / "fell").exists()
    monkeypatch.setenv(meeting.SECRET, "short")
    with pytest.raises(BadInput, match="expected at least 32 hex digits"):
        ranks.served(1, tmp_path)


def test_ranks_of_one_machine_listen_on_loopback_alone_and_run_nothing_that_is_sent(tmp_path):
    with led(2, sums, {}, device="cpu", start=5) as found:
        assert isinstance(found, Team)
        here = psutil.Process()
        ours = [
            here,
            *(
                p
                for p in here.children()
                if "stockpot.stages.processes.rank_process" in p.cmdline()
            ),
        ]
        assert len(ours) == 2
        assert all(SECRET.hex() not in " ".join(p.cmdline()) for p in ours)
        doors = [
            c.laddr for p in ours for c in p.net_connections() if c.status == psutil.CONN_LISTEN
        ]
        assert len(doors) >= 3  # rank 0's store, and gloo's of each
        assert {door.ip for door in doors} == {"127.0.0.1"}
        bomb = pickle.dumps(Bomb(tmp_path / "fell"))
        for door in doors:
            with socket.create_connection(door, timeout=5) as wire:
                wire.sendall(bomb)
        assert sums(found, inputs={}, start=5) == Score(11, 2, 1.0)
    assert not (tmp_path / "fell").exists()


@pytest.mark.parametrize(
    ("environment", "here"),
    [
        ({}, True),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.7"}, False),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "node7"}, False),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, True),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "node7", "LOCAL_WORLD_SIZE": "2"}, True),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": "2"}, False),
    ],
)
def test_several_machines_are_those_a_launcher_names(monkeypatch, environment, here):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert meeting.one_machine() is here
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    with meeting.on_loopback():
        assert (meeting.os.environ["GLOO_SOCKET_IFNAME"] == "eth7") is not here
    assert meeting.os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_no_module_but_the_one_that_starts_dask_imports_pickle_or_moves_objects():
    for path in sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/**/*.py")]):
        tree, name = ast.parse(path.read_text()), path.relative_to(ROOT).as_posix()
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert (
            name == "pipeline/execution/worker_process.py"
            or not {"pickle", "cloudpickle", "dill", "marshal"} & imported
        ), name
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        moved = re.compile(r"(all_gather|gather|broadcast|scatter|send|recv)_object(_list)?")
        assert not {one for one in called if moved.fullmatch(one)}, name
