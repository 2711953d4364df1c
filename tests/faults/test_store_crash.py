"""A crash, full disk or power cut at any single step: no reader sees a half, and resuming ends with
the same bytes."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from stockpot.errors import BadInput
from stockpot.execution.task import execute
from stockpot.store import fs
from stockpot.store.store import Store
from stockpot.store.verify import verify_store
from tests.pipeline.store.toy import CountParams, build, install, payload_bytes, plan
from tests.runs import quarantines


class Crash(BaseException):
    """Not an Exception, so that no handler tidies up: as if the process had been killed."""


@pytest.fixture
def tmp_path():
    """In memory where the system offers it: hundreds of stores are built and removed."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    install(monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture
def calm(tmp_path):
    build(tmp_path / "calm")
    return payload_bytes(tmp_path / "calm")


def no_links(monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


class Power:
    """Counts steps, fails at one of them, and knows what a power cut there would have left.

    Files that were not synced lose their second half; names in folders that were not synced since
    vanish.
    """

    def __init__(self, monkeypatch, root, at, fail):
        self.root, self.at, self.fail, self.step = root, at, fail, 0
        self.synced, self.names = set(), {}
        monkeypatch.setattr(fs, "before", self.before)

    def before(self, name, path):
        self.step += 1
        if self.step == self.at:
            self.fail(name, path)
        if name == "fsync":
            self.synced.add(Path(path).stat().st_ino)
        if name == "fsync-folder":
            self.names[str(path)] = set(os.listdir(path))

    def cut(self):
        for folder, folders, files in os.walk(self.root, topdown=False):
            kept = self.names.get(folder, set())
            for name in files:
                path = Path(folder, name)
                if name not in kept:
                    path.unlink()
                elif path.stat().st_ino not in self.synced:
                    os.truncate(path, path.stat().st_size // 2)
            for name in folders:
                if name not in kept:
                    fs.remove_tree(Path(folder, name))


def crash(_name, _path):
    raise Crash


def steps_of(monkeypatch, root):
    with monkeypatch.context() as counting:
        power = Power(counting, root, -1, crash)
        build(root)
    return power.step


def check(root, calm):
    """Whatever a reader can see is whole."""
    assert verify_store(Store(root)) == []
    for stage, key in Store(root).artifacts():
        Store(root).open(stage, key)
        assert payload_bytes(root) == calm


def at_every_step(monkeypatch, tmp_path, calm, *, cut=False, links=True, stride=1):
    if not links:
        no_links(monkeypatch)
    steps = steps_of(monkeypatch, tmp_path / "count")
    assert steps > 60
    stopped = 0
    for at in range(1, steps + 1, stride):
        root = tmp_path / f"s{at}"
        with monkeypatch.context() as failing:
            power = Power(failing, root, at, crash)
            try:
                build(root)
            except Crash:
                stopped += 1
        if cut:
            power.cut()
        check(root, calm)
        build(root)
        assert payload_bytes(root) == calm, at
        check(root, calm)
        Store(root).clean_work()
        assert list((root / "work").iterdir()) == []
    assert stopped == len(range(1, steps + 1, stride))


def test_crash_at_every_step(monkeypatch, tmp_path, calm):
    at_every_step(monkeypatch, tmp_path, calm)


def test_crash_at_every_step_without_hard_links(monkeypatch, tmp_path, calm):
    at_every_step(monkeypatch, tmp_path, calm, links=False, stride=3)


def test_power_cut_at_every_step(monkeypatch, tmp_path, calm):
    at_every_step(monkeypatch, tmp_path, calm, cut=True)


@pytest.mark.long
def test_power_cut_at_every_step_without_hard_links(monkeypatch, tmp_path, calm):
    at_every_step(monkeypatch, tmp_path, calm, cut=True, links=False)


def test_torn_write_at_every_write(monkeypatch, tmp_path, calm):
    whole = fs.append
    writes = [0]

    def count(fd, data, path):
        writes[0] += 1
        whole(fd, data, path)

    with monkeypatch.context() as counting:
        counting.setattr(fs, "append", count)
        build(tmp_path / "count")
    for at in range(1, writes[0] + 1):
        left = [at]

        def torn(fd, data, path, left=left):
            left[0] -= 1
            if left[0] == 0:
                whole(fd, bytes(data)[: len(bytes(data)) // 2], path)
                raise Crash
            whole(fd, data, path)

        root = tmp_path / f"s{at}"
        with monkeypatch.context() as failing:
            failing.setattr(fs, "append", torn)
            with pytest.raises(Crash):
                build(root)
        check(root, calm)
        build(root)
        check(root, calm)
        assert payload_bytes(root) == calm


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_disk_gives_out_at_every_step(monkeypatch, tmp_path, calm, code):
    def fail(_name, path):
        raise OSError(code, os.strerror(code), path)

    steps = steps_of(monkeypatch, tmp_path / "count")
    refusals = []
    for at in range(1, steps + 1, 4):
        root = tmp_path / f"s{at}"
        with monkeypatch.context() as failing:
            Power(failing, root, at, fail)
            try:
                build(root)
            except BadInput as error:
                refusals.append((root, error))
        check(root, calm)
        build(root)
        assert payload_bytes(root) == calm
    # Only the courtesies (removing what is of no more use) may fail unseen.
    assert len(refusals) > steps // 4 * 0.8
    for root, error in refusals:
        assert error.exit_code == 2
        assert f"store {root}: cannot write" in str(error)
        assert "--store DIR" in str(error)


def test_disk_stays_full(monkeypatch, tmp_path, calm):
    tasks = plan(tmp_path / "s")
    execute(tasks[0])

    def full(name, path):
        if name in {"open", "write", "mkdir", "link"}:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with monkeypatch.context() as filling:
        filling.setattr(fs, "before", full)
        for task in tasks[1:2] * 3:
            with pytest.raises(BadInput, match="the disk is full"):
                execute(task)
        assert execute(tasks[0]).reused
    build(tmp_path / "s")
    assert payload_bytes(tmp_path / "s") == calm


def test_crash_then_crash_again(monkeypatch, tmp_path, calm):
    """Every run gets a few steps further, and each is killed, until one ends."""
    root = tmp_path / "s"
    runs = 0
    for budget in range(10, 2000, 7):
        runs += 1
        with monkeypatch.context() as failing:
            Power(failing, root, budget, crash)
            try:
                build(root)
                break
            except Crash:
                check(root, calm)
    assert runs > 3
    assert payload_bytes(root) == calm


def test_lost_reply_of_a_link(monkeypatch, tmp_path, calm):
    real = Path.hardlink_to

    def lossy(self, target):
        real(self, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    monkeypatch.setattr(Path, "hardlink_to", lossy)
    build(tmp_path / "s")
    assert payload_bytes(tmp_path / "s") == calm


def test_leftovers_of_other_bytes_are_set_aside(tmp_path, monkeypatch, calm):
    """Work was deleted by hand in the middle of a commit, and this machine's recorded stage gave
    other bytes."""
    tasks = plan(tmp_path / "s")
    store = Store(tmp_path / "s")
    folder = store.folder("count", tasks[0].key)
    (folder / "total" / "c").mkdir(parents=True)
    (folder / "total" / "c" / "0").write_bytes(b"other bytes")
    (folder / "stranger").write_text("x")
    for task in tasks:
        execute(task)
    assert payload_bytes(tmp_path / "s") == calm
    assert verify_store(store) == []
    assert len(quarantines(store)) == 1


def test_shards_of_four(monkeypatch, tmp_path):
    """The bytes of the array do not depend on how often each shard was killed."""
    params = CountParams(n=16, shards=4)
    build(tmp_path / "calm", params=params)
    tasks = plan(tmp_path / "s", params=params)
    for n, task in enumerate(tasks):
        for at in range(5, 5 + 9 * (n + 1), 9):
            with monkeypatch.context() as failing:
                Power(failing, tmp_path / "s", at, crash)
                try:
                    execute(task)
                except Crash:
                    continue
        execute(task)
    assert payload_bytes(tmp_path / "s") == payload_bytes(tmp_path / "calm")


def test_claim_carried_out_by_the_loser(monkeypatch, tmp_path):
    """Without hard links: between winning a claim and using it, a contender puts the winner's bytes
    in place."""
    no_links(monkeypatch)
    mine, yours, target = tmp_path / "mine", tmp_path / "yours", tmp_path / "target"
    mine.write_bytes(b"mine")
    yours.write_bytes(b"yours")
    replies = []

    def meanwhile(name, path):
        if (
            name == "fsync-folder"
            and path == str(tmp_path / "claims")
            and (tmp_path / "claims/claim-target").exists()
        ):
            monkeypatch.setattr(fs, "before", lambda _name, _path: None)
            replies.append(fs.publish(yours, target, tmp_path / "claims"))

    monkeypatch.setattr(fs, "before", meanwhile)
    assert fs.publish(mine, target, tmp_path / "claims")
    assert replies == [False]
    assert target.read_bytes() == b"mine"
    assert not fs.publish(yours, target, tmp_path / "claims")
    assert target.read_bytes() == b"mine"


def test_power_cut_after_success_loses_nothing(monkeypatch, tmp_path, calm):
    tasks = plan(tmp_path / "s")
    with monkeypatch.context() as watching:
        power = Power(watching, tmp_path / "s", -1, crash)
        for task in tasks[:-1]:
            execute(task)
            power.cut()
            assert task.shard.name in Store(tmp_path / "s").work_in_progress(task.key)["shards"]
            assert execute(task).reused
        execute(tasks[-1])
        power.cut()
    assert Store(tmp_path / "s").committed("count", tasks[0].key)
    check(tmp_path / "s", calm)
