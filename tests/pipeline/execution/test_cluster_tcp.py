"""A scheduler and workers that a user started: the same bytes as a local run, also when a worker is
killed.

Scheduler and workers are processes of their own in working directories of their own; the driver is
this process.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from stockpot.cli import main
from stockpot.execution import workers
from tests.graphs import write_recipe
from tests.pipeline import fakes

ROOT = Path(__file__).parents[3]
EXACT = fakes.EXACT
WAIT_S = 120
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def can_hide():
    """Whether this machine lets a test give a process a view of the file system of its own."""
    try:
        return (
            subprocess.run(
                [*UNSHARE, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True
            ).returncode
            == 0
        )
    except OSError:
        return False


class Site:
    """A scheduler, its workers by name, and the folder of fake stages' control files they were
    started with."""

    def __init__(self, folder, preload="tests.pipeline.fakes"):
        self.folder = folder
        self.control = folder / "control"
        self.control.mkdir()
        self.processes = {}
        self.preload = ["--preload", preload] if preload else []
        info = folder / "scheduler.json"
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(info))
        until(info.exists)
        self.address = json.loads(info.read_text())["address"]

    def start(self, name, *words, hide=None):
        place = self.folder / name
        place.mkdir(exist_ok=True)
        verb = "scheduler" if name == "scheduler" else "worker"
        common = ["--dashboard-address", "127.0.0.1:0"]
        path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
        elsewhere = (
            [*UNSHARE, "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hide)]
            if hide
            else []
        )
        with open(place / "log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*elsewhere, sys.executable, "-m", "dask", verb, *words, *common],
                cwd=place,
                env={**os.environ, "PYTHONPATH": path, "FAKE_STAGES": str(self.control)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def worker(self, name, *words, hide=None):
        """Start a worker; `hide` is a folder that is empty for it, as on another machine."""
        common = ["--nthreads", "1", "--memory-limit", "2GB", "--name", name, "--host", "127.0.0.1"]
        self.start(name, self.address, *common, *self.preload, *words, hide=hide)

    def pids(self, name):
        """Processes that may run tasks: the worker itself, or what its nanny started."""
        process = psutil.Process(self.processes[name].pid)
        return {process.pid, *(child.pid for child in process.children(recursive=True))}

    def stop(self, *names):
        for name in names or list(self.processes):
            process = self.processes.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(true, what="", wait_s=WAIT_S):
    deadline = time.monotonic() + wait_s
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.worker("nannied")
        site.worker("bare", "--no-nanny")
        yield site
    finally:
        site.stop()


class World:
    """A recipe of fake stages and its stores; `run` is the command line, in this process."""

    def __init__(self, site, folder):
        self.site, self.folder = site, folder
        fakes.write_source(folder)
        (folder / "toy.toml").write_text(
            '[dataset]\nsource = "npz:toy.npz"\n[train]\ningredients = 2\n'
        )

    def order(self, kind, name, count=1):
        (self.site.control / f"{kind}-{name}").write_text(str(count))

    def run(self, *words, store="store", scheduler=None):
        self.words(*words, store=store)
        where = ["--scheduler", scheduler or self.site.address]
        return main([*self.words(*words, store=store), *where])

    def words(self, *words, store="store"):
        return ["run", "toy.toml", *words, "--store", store, "--runs", f"runs_{store}"]

    def driver(self, *words, store="store"):
        command = [sys.executable, "-m", "tests.pipeline.fakes", *self.words(*words, store=store)]
        environment = {
            **os.environ,
            "FAKE_STAGES": str(self.site.control),
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        return subprocess.Popen(
            [*command, "--scheduler", self.site.address],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def digests(self, store="store"):
        return exact_digests(self.folder / store)

    def runners(self, store="store"):
        """Process ids behind the attempts at shards of influence:train under way."""
        found = set()
        for path in (self.folder / store).glob("work/*/attempt-*/owner.json"):
            with contextlib.suppress(OSError, ValueError):
                owner = json.loads(path.read_text())
                published = path.parents[1] / "shards" / f"{owner['shard']}.json"
                if owner["shard"].startswith("influence.train") and not published.exists():
                    found.add(owner["pid"])
        return found


def exact_digests(store):
    found = [json.loads(path.read_text()) for path in Path(store).glob("objects/*/*/manifest.json")]
    return {(m["stage"], m["key"]): m["digest"] for m in found if m["stage"] in EXACT}


def same(found, expected):
    """Whether the exact artifacts of a run up to `order` are all there with the expected
    digests."""
    return {stage for stage, _ in found} == {
        "ingest",
        "split",
        "sizing",
        "influence",
        "order",
    } and found.items() <= expected.items()


@pytest.fixture
def world(site, tmp_path, monkeypatch):
    for path in site.control.iterdir():
        path.unlink()
    monkeypatch.setenv("FAKE_STAGES", str(site.control))
    monkeypatch.chdir(tmp_path)
    with fakes.installed():
        yield World(site, tmp_path)


@pytest.fixture(scope="module")
def local(site, tmp_path_factory):
    """Digests of a run without a cluster; tasks run in this process, one after the other."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch, fakes.installed():
        patch.setenv("FAKE_STAGES", str(site.control))
        patch.chdir(folder)
        patch.setattr("stockpot.execution.run.LocalWorkers", InProcess)
        world = World(site, folder)
        assert main(world.words()) == 0
        return world.digests()


class InProcess:
    cluster = None

    def __init__(self, budget, largest):
        self.done = []

    @property
    def busy(self):
        return bool(self.done)

    def refuse(self, projected):
        pass

    def submit(self, tag, peak, task):
        from stockpot.execution.cluster import Outcome
        from stockpot.execution.task import execute

        if self.done:
            return False
        self.done.append(Outcome(tag, execute(task)))
        return True

    def wait(self, timeout_s):
        found, self.done = self.done, []
        return found

    def close(self, *, now=False):
        pass


def in_the_middle(world, act):
    """Call `act` with the ids of the two worker processes once they are in the middle of
    influence:train."""
    caught = []

    def watch():
        try:
            until(
                lambda: len([c for c in fakes.calls() if c.startswith("influence.train/")]) == 2,
                "two tasks run",
            )
            act(world.runners())
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread, caught


def test_the_same_bytes_as_a_local_run(world, local, capsys):
    assert world.run() == 0
    assert world.digests() == local
    said = capsys.readouterr().out
    assert re.search(
        r"cluster tcp://127.0.0.1:\d+: \d workers?, \d threads, [0-9.]+ GB; dashboard http://127",
        said,
    )
    page = (world.folder / "runs_store/toy/dask-report.html").read_text()
    assert "Dask Performance Report" in page
    assert not re.search(r"<script[^>]* src=", page)
    assert not list((world.folder / "store/work").glob(".probe-*"))


@pytest.mark.parametrize("name", ["nannied", "bare"])
def test_a_worker_killed_in_the_middle(world, site, local, capsys, name):
    world.order("sleep", "influence.train", 600)

    def kill(pids):
        victim, *_ = pids & site.pids(name)
        os.kill(victim, signal.SIGKILL)
        (site.control / "sleep-influence.train").unlink()

    thread, caught = in_the_middle(world, kill)
    try:
        assert world.run("order") == 0
    finally:
        thread.join()
        if name == "bare":
            site.processes.pop(name).wait()
            site.worker("bare", "--no-nanny")
    assert not caught
    assert same(world.digests(), local)
    said = capsys.readouterr().out
    assert said.count("its worker died; started again (1 of 3)") == 1
    assert len([call for call in fakes.calls() if call.startswith("influence.train/")]) == 4


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_takes_its_tasks_along_and_leaves_the_workers(world, site, local, how):
    world.order("sleep", "influence.train", 600)
    driver = world.driver("order")
    until(
        lambda: len([c for c in fakes.calls() if c.startswith("influence.train/")]) >= 2,
        "two tasks run",
    )
    driver.send_signal(how)
    _, said = driver.communicate(timeout=WAIT_S)
    if how == signal.SIGINT:
        assert driver.returncode == 130
        assert (
            said
            == "stockpot: error: interrupted; fix: run the same command again: it continues where "
            "it stopped\n"
        )
    until(lambda: not world.runners(), "their attempts end")
    assert all(process.poll() is None for process in site.processes.values())
    (site.control / "sleep-influence.train").unlink()
    assert world.run("order") == 0
    assert same(world.digests(), local)


def test_a_worker_that_joins_later_is_used(world, site, capsys):
    seen = []

    def join(pids):
        try:
            site.worker("late")
            seen.append(
                until(lambda: world.runners() & site.pids("late"), "the new worker runs a task")
            )
        finally:
            (site.control / "sleep-influence.train").unlink()

    world.order("sleep", "influence.train", 600)
    thread, caught = in_the_middle(world, join)
    try:
        assert world.run("influence:train") == 0
    finally:
        thread.join()
        site.stop("late")
    assert not caught
    assert seen
    assert "joined" in capsys.readouterr().out


# --- what is refused


def refused(capsys, code, world, *words, **where):
    begin = time.monotonic()
    assert world.run(*words, **where) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("stockpot: error: ")
    assert "; fix: " in error
    return error, time.monotonic() - begin


def test_a_scheduler_that_is_not_there(world, capsys):
    error, seconds = refused(capsys, 2, world, scheduler="tcp://127.0.0.1:1")
    assert "tcp://127.0.0.1:1: no Dask scheduler answers" in error
    assert seconds < 20
    error, _ = refused(capsys, 2, world, scheduler="http://127.0.0.1:8786")
    assert 'expected "local" or "tcp://HOST:PORT"' in error


def test_a_task_too_large_for_every_worker(world, capsys):
    error, _ = refused(capsys, 2, world, "--set", "resources.memory=1MB")
    assert "exceeds resources.memory" in error
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes, "PEAK", 1_900_000_000)
        error, _ = refused(capsys, 2, world)
    assert "exceeds every worker's limit" in error
    assert "--memory-limit 2.1GB" in error
    assert not list((world.folder / "store").glob("objects/*/*"))


def test_no_workers(world, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "APPEAR_S", 1.0)
    empty = Site(tmp_path)
    try:
        error, _ = refused(capsys, 2, world, scheduler=empty.address)
        assert (
            f"cluster {empty.address}: no worker came within 1 s; fix: dask worker {empty.address}"
            in error
        )
    finally:
        empty.stop()


def test_a_worker_with_other_software(world, capsys, monkeypatch):
    from stockpot.execution import probe

    true = probe._version
    monkeypatch.setattr(probe, "_version", lambda name: "9.9" if name == "numpy" else true(name))
    probe.software.cache_clear()
    try:
        error, _ = refused(capsys, 2, world)
    finally:
        probe.software.cache_clear()
    assert re.search(r"worker tcp://\S+ on \S+: numpy: expected 9.9, found ", error)


@pytest.mark.skipif(not can_hide(), reason="needs mount namespaces")
@pytest.mark.parametrize("what", ["store", "source"])
def test_a_worker_that_does_not_see_what_the_driver_sees(world, site, capsys, what):
    hidden = world.folder / "hidden"
    hidden.mkdir()
    blind = f"blind-{what}"
    site.worker(blind, hide=hidden)
    try:
        until(lambda: "Registered to" in (site.folder / blind / "log").read_text())
        if what == "store":
            error, _ = refused(capsys, 2, world, "split", store="hidden/store")
            assert (
                f"cannot see the store {hidden}/store: no such folder there; fix: put the store on"
                in error
            )
            assert not (hidden / "store/objects/ingest").exists()
        else:
            (world.folder / "toy.npz").rename(hidden / "toy.npz")
            error, _ = refused(
                capsys, 2, world, "split", "--set", "dataset.source=npz:hidden/toy.npz"
            )
            assert (
                f"cannot see the source {hidden}/toy.npz: No such file or directory; fix: put it on"
                in error
            )
        assert re.search(r"worker tcp://127.0.0.1:\d+ on ", error)
    finally:
        site.stop(blind)


# --- the real stages


@pytest.mark.long
def test_real_stages_with_a_worker_killed_now_and_then(tmp_path):
    """Each of the two workers, one under a nanny and one bare, is killed while it works; the bytes
    stay the same."""
    (tmp_path / "site").mkdir()
    recipe = write_recipe(
        tmp_path, nodes=20_000, degree=8, features=32, hidden=32, epochs=6, outputs=512
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}

    def command(where, *words):
        place = ["--store", str(tmp_path / where), "--runs", str(tmp_path / f"runs_{where}")]
        return [sys.executable, "-m", "stockpot.cli", "run", str(recipe), *place, *words]

    subprocess.run(command("calm"), check=True, capture_output=True, timeout=900, env=environment)
    site = Site(tmp_path / "site", preload=None)
    try:
        site.worker("nannied")
        site.worker("bare", "--no-nanny")
        log = tmp_path / "log"
        with open(log, "w") as out:
            words = command("store", "--scheduler", site.address)
            driver = subprocess.Popen(words, stdout=out, stderr=out, env=environment)
        for shards, name in (
            (r"\d{5}", "nannied"),
            ("ingredient", "bare"),
        ):  # of influence, of train
            pid = until(
                lambda s=shards, n=name: at_work(tmp_path / "store", s) & site.pids(n), shards, 600
            ).pop()
            os.kill(pid, signal.SIGKILL)
            if name == "bare":
                site.processes.pop(name).wait()
                site.worker(name, "--no-nanny")
        assert driver.wait(timeout=900) == 0, log.read_text()
    finally:
        site.stop()
    said = log.read_text()
    assert said.count("its worker died") >= 2, said
    calm = exact_digests(tmp_path / "calm")
    assert {stage for stage, _ in calm} == EXACT
    assert exact_digests(tmp_path / "store") == calm


def at_work(store, shards):
    """Process ids of attempts under way at shards of such names."""
    found = set()
    for path in store.glob("work/*/attempt-*/owner.json"):
        with contextlib.suppress(OSError, ValueError):
            owner = json.loads(path.read_text())
            published = path.parents[1] / "shards" / f"{owner['shard']}.json"
            if re.fullmatch(shards, owner["shard"]) and not published.exists():
                found.add(owner["pid"])
    return found
