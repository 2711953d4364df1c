"""No worker ever holds more projected bytes than it may use; tasks nobody wants end; one module
imports Dask."""

import ast
import ctypes
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.execution import cluster as execution_cluster
from stockpot.execution import interrupt
from stockpot.execution.cluster import Cluster, Member, Outcome
from stockpot.execution.interrupt import Unwanted, while_wanted
from stockpot.execution.probe import Answer, Probe, answer, software
from stockpot.execution.task import Task
from stockpot.execution.workers import LentWorkers, LocalWorkers
from stockpot.planning.budget import WORKER_BYTES, Budget
from stockpot.stages.errors import BadInput, OverBudget, StockpotError
from stockpot.stages.stage import Cost, Shard
from tests.pipeline.execution.test_run import Said

ROOT = Path(__file__).parents[3]
TASK = Task("store", "node", "stage", "0" * 32, {}, {}, Shard("a"), ("a",), exact=True)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_only_one_module_imports_dask():
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("pipeline", "stages")
        for path in (ROOT / folder).rglob("*.py")
        if any(name.split(".")[0] in ("dask", "distributed") for name in imports(path))
    }
    assert found == {"pipeline/execution/cluster.py"}


@dataclass
class FakeCluster:
    """Keeps what was submitted; `end` makes an outcome of it."""

    workers: int = 0
    flying: dict = field(default_factory=dict)
    ended: list = field(default_factory=list)
    here: dict = field(default_factory=dict)
    scaled: list = field(default_factory=list)
    dashboard = "http://dash"

    def submit(self, tag, function, task, worker=None):
        self.flying[tag] = task, worker

    def end(self, tag):
        del self.flying[tag]
        self.ended.append(Outcome(tag))

    def abandon(self, tag):
        del self.flying[tag]
        self.ended.append(Outcome(tag, lost=True))

    def wait(self, timeout_s):
        found, self.ended = self.ended, []
        return found

    def scale(self, count):
        assert not self.flying or count > self.workers, "a busy worker would be stopped"
        self.workers = count
        self.scaled.append(count)

    def members(self):
        return self.here

    def ask_scheduler(self, function):
        return function()

    def ask(self, tag, worker, function, *args):
        self.ended.append(Outcome(tag, value=function(*args)))

    def close(self, now=False):
        pass


@given(
    st.integers(300, 5000),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_local_workers_never_exceed_the_budget(memory, cores, costs, rng):
    budget = Budget(memory * 10**6, cores)
    tasks = [Cost(0, 0, max(a, b) * 10**6, min(a, b) * 10**6) for a, b in costs]
    tasks = [cost for cost in tasks if cost.needed <= budget.task_bytes]
    cluster = FakeCluster()
    workers = LocalWorkers(budget, 0, cluster)
    cluster.workers = min(cores, memory * 10**6 // WORKER_BYTES) or 1
    queue, done = list(enumerate(tasks)), 0
    while done < len(tasks):
        while queue and workers.submit(queue[0][0], queue[0][1], TASK):
            tag, cost = queue.pop(0)
            assert cost.needed <= cluster.flying[tag][0].memory_bytes <= cost.peak
        assert cluster.flying, "a task that fits alone is started"
        granted = sum(task.memory_bytes for task, _ in cluster.flying.values())
        assert len(cluster.flying) <= cluster.workers <= cores
        assert granted + cluster.workers * WORKER_BYTES <= budget.memory_bytes
        cluster.end(rng.choice(list(cluster.flying)))
        done += len(workers.wait(0))
    assert not workers.busy


def member(name, gigabytes, threads=1, paused=False):
    return Member(name, name, threads, gigabytes * 10**9, paused)


@pytest.fixture
def lent(tmp_path):
    cluster = FakeCluster(here={"small": member("small", 1), "large": member("large", 4, 3)})
    said = Said()
    budget = Budget(1 << 62, 2, scheduler="tcp://h:1")
    workers = LentWorkers(cluster, Probe(tmp_path / "store"), budget, said)
    workers.said = said.lines
    workers.start()
    yield workers
    workers.close()
    assert not list((tmp_path / "store/work").iterdir())


def test_a_task_goes_to_the_smallest_worker_that_holds_it(lent):
    cluster = lent._cluster
    assert lent.submit("a", Cost(0, 0, 10**8), TASK)
    assert lent.submit("b", Cost(0, 0, 10**8), TASK)
    assert not lent.submit("c", Cost(0, 0, 10**8), TASK)
    assert [(worker, task.threads) for task, worker in cluster.flying.values()] == [
        ("small", 1),
        ("large", 3),
    ]
    cluster.end("a")
    cluster.end("b")
    assert len(lent.wait(0)) == 2
    assert lent.submit("d", Cost(0, 0, 9 * 10**9, 2 * 10**9), TASK)
    task, worker = cluster.flying["d"]
    assert (worker, task.memory_bytes) == ("large", 4 * 10**9 - WORKER_BYTES)
    assert not lent.submit("e", Cost(0, 0, 2 * 10**9), TASK)
    assert lent.submit("f", Cost(0, 0, 8 * 10**8), TASK)


def test_what_no_worker_holds_is_refused(lent):
    lent.refuse([("pack", Cost(0, 0, 4 * 10**9 - WORKER_BYTES))])
    with pytest.raises(
        OverBudget, match=r"exceeds every worker's limit: pack 4.5 GB; allowed 4.0 GB on large"
    ):
        lent.refuse([("pack", Cost(0, 0, 43 * 10**8))])


def test_workers_come_and_go(lent, monkeypatch):
    cluster = lent._cluster
    monkeypatch.setattr("stockpot.execution.workers.LOOK_EVERY_S", 0.0)
    assert lent.submit("a", Cost(0, 0, 2 * 10**9), TASK)
    del cluster.here["large"]
    assert [(o.tag, o.lost) for o in lent.wait(0)] == [("a", True)]
    assert not lent.submit("a", Cost(0, 0, 2 * 10**9), TASK)
    cluster.here["new"] = member("new", 8)
    assert lent.wait(0) == []
    assert lent.submit("a", Cost(0, 0, 2 * 10**9), TASK)
    assert cluster.flying["a"][1] == "new"
    assert any("worker new" in line and "joined" in line for line in lent.said)
    cluster.here["small"] = member("small", 1, paused=True)
    lent.wait(0)
    assert not lent.submit("b", Cost(0, 0, 1), TASK)


def test_a_task_no_worker_is_left_for_is_an_error_in_time(lent, monkeypatch):
    monkeypatch.setattr("stockpot.execution.workers.APPEAR_S", 0.05)
    assert not lent.submit("a", Cost(0, 0, 9 * 10**9), TASK)
    assert lent.wait(0) == []
    time.sleep(0.1)
    assert not lent.submit("a", Cost(0, 0, 9 * 10**9), TASK)
    with pytest.raises(
        BadInput,
        match=r"no worker with 9.2 GB for the next task within 0 s; fix: dask worker tcp://h:1",
    ):
        lent.wait(0)


# --- the probe


def test_a_probe_passes_in_the_same_store(tmp_path):
    source = tmp_path / "x.npz"
    source.write_bytes(b"abc")
    probe = Probe(tmp_path / "store", [source])
    question = probe.question()
    assert probe.judge("w", question[2], answer(*question)) == ""
    source.write_bytes(b"abcd")
    with pytest.raises(
        BadInput,
        match=r"worker w on \S+: source \S+x.npz: expected 3 bytes as on the driver, found 4",
    ):
        probe.judge("w", question[2], answer(*question[:2], "other", question[3]))
    probe.close()


def test_a_store_of_the_same_name_elsewhere_does_not_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("stockpot.execution.probe.SEEN_WITHIN_S", 0.1)
    probe = Probe(tmp_path / "store")
    folder, token, reply, sources = probe.question()
    elsewhere = folder.replace(str(tmp_path / "store"), str(tmp_path / "other"))
    assert "no such folder there" in answer(elsewhere, token, reply, sources).problem
    (tmp_path / "other").mkdir()
    assert (
        "it is another folder than the driver's" in answer(elsewhere, token, reply, sources).problem
    )
    # A worker that says all is well, but whose reply does not arrive.
    well = Answer("h", 1, software(), 10**9)
    with pytest.raises(
        BadInput, match="does not arrive here: its folder is another one; fix: put the store on"
    ):
        probe.judge("w", reply, well)
    newer = Answer("h", 1, {**software(), "torch": "99"}, 10**9)
    (probe.folder / reply).write_text(token)
    assert "torch: expected" in probe.judge("w", reply, newer)


# --- calls nobody wants


def test_an_unwanted_call_ends_and_its_thread_goes_on(monkeypatch):
    monkeypatch.setattr(interrupt, "ASK_EVERY_S", 0.02)
    wanted, tidied = threading.Event(), []
    wanted.set()

    def call():
        try:
            wanted.clear()
            while True:
                time.sleep(0.005)
        finally:
            tidied.append(True)

    with pytest.raises(Unwanted):
        while_wanted(wanted.is_set, call)
    assert tidied
    wanted.set()
    for i in range(20):
        assert while_wanted(wanted.is_set, lambda i=i: i) == i


def test_an_exception_sent_too_late_hits_nothing(monkeypatch):
    monkeypatch.setattr(interrupt, "ASK_EVERY_S", 0.0001)
    ended = late = 0
    for _ in range(20):
        asked, over = threading.Event(), threading.Event()

        def wanted(asked=asked, over=over):
            asked.set()
            over.wait()  # so that it is sent once the call has returned
            return False

        def call(asked=asked, over=over):
            asked.wait()
            over.set()

        try:
            while_wanted(wanted, call)
        except Unwanted:
            ended += 1
        try:
            for _ in range(20):
                time.sleep(0.0005)
        except Unwanted:
            late += 1
    assert (ended > 0, late) == (True, 0)


def test_an_exception_that_meets_the_tidying_leaves_nobody_watching(monkeypatch):
    class Met(queue.SimpleQueue):
        def put(self, item):
            if not met:
                met.append(True)
                raise Unwanted  # as sent between the end of the call and the word to its watcher
            super().put(item)

    met = []
    monkeypatch.setattr(interrupt, "queue", SimpleNamespace(SimpleQueue=Met, Empty=queue.Empty))
    with pytest.raises(Unwanted):
        while_wanted(lambda: True, lambda: 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "stockpot-wanted"]


def test_what_was_sent_and_has_not_arrived_is_taken_back(monkeypatch):
    sent, there = [], threading.Event()

    def send(thread, what):
        assert thread.value == threading.main_thread().ident
        sent.append(what)
        there.set()

    slow = SimpleNamespace(PyThreadState_SetAsyncExc=send)  # what is sent arrives after all else
    fake = SimpleNamespace(c_ulong=ctypes.c_ulong, py_object=ctypes.py_object, pythonapi=slow)
    monkeypatch.setattr(interrupt, "ctypes", fake)
    monkeypatch.setattr(interrupt, "ASK_EVERY_S", 0.0001)
    assert while_wanted(lambda: False, lambda: there.wait(30))
    assert sent[0].value is Unwanted
    assert sent[-1] is None


def test_nobody_waits_for_workers_that_are_gone_for_good(monkeypatch):
    """Dask holds a task without a word until a worker comes, and a nanny that fails to start one
    gives up."""
    cluster = Cluster(None)
    cluster._local = SimpleNamespace(workers={}, scheduler=SimpleNamespace(workers={}))
    assert cluster.wait(0) == []  # nothing is asked of anybody
    cluster._futures["task"] = ("tag", None)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert cluster.wait(0) == []  # one may just be starting
    cluster._local.scheduler.workers["one"] = None
    monkeypatch.setattr(time, "monotonic", lambda: now + 500)
    assert cluster.wait(0) == []
    cluster._local.scheduler.workers.clear()
    assert cluster.wait(0) == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 501 + execution_cluster._ALONE_S)
    with pytest.raises(
        StockpotError, match="workers: all processes have died, and none has come back"
    ):
        cluster.wait(0)


WORKER = """
import ctypes, os
from stockpot.execution.worker_process import dask_setup
dask_setup(None)
print(os.getpid(), os.getpgid(0), flush=True)
ctypes.PyDLL(None).sleep(60)
"""
"""Holds the interpreter, as a kernel does: no thread of Python sees that the driver is gone."""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_worker_leads_a_group_and_dies_with_its_driver_whatever_it_is_at():
    driver = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen(
        [sys.executable, "-c", driver, WORKER], stdout=subprocess.PIPE, text=True
    ) as process:
        worker, group = map(int, process.stdout.readline().split())
        process.kill()
    assert group == worker
    deadline = time.monotonic() + 20
    while lives(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(worker)


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
