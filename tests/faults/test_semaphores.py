"""Named semaphores of a run whose processes were all killed at once are gone after the next; living
ones stay."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.synchronize import SemLock
from pathlib import Path

import psutil
import pytest

from stockpot.execution.semaphores import clear_dead, owned
from stockpot.store.attempt import alive, owner
from tests.graphs import write_recipe

SHM = Path("/dev/shm")
TAKES = """
from multiprocessing import get_context
from stockpot.execution.semaphores import owned
with owned():
    queue = get_context("spawn").Queue()
    print("taken", flush=True)
    input()
"""

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="needs Linux's folder of shared memory")


def named(pid):
    return {path.name for path in SHM.glob(f"sem.stockpot.*.{pid}.*")}


def test_those_of_dead_processes_go_and_those_of_living_ones_stay():
    lock_of = get_context("spawn").Lock
    others = named(os.getpid())  # of clusters that earlier tests of this process started
    with owned():
        mine = lock_of()
    left = named(os.getpid())
    assert len(left - others) == 1
    plain = lock_of()
    assert named(os.getpid()) <= left, "others of this process keep the names of Python"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", TAKES], stdin=pipe, stdout=pipe, start_new_session=True
    ) as child:
        assert child.stdout.readline() == b"taken\n"
        assert len(named(child.pid)) >= 3
        clear_dead()
        assert len(named(child.pid)) >= 3
        os.killpg(child.pid, signal.SIGKILL)  # its tracker too: nobody is left to unlink them
        child.wait()
    assert len(named(child.pid)) >= 3
    clear_dead()
    assert not named(child.pid)
    assert named(os.getpid()) >= left - others
    del mine, plain


def test_a_change_of_the_clock_makes_no_process_another(monkeypatch):
    here = owner()
    assert alive(here["pid"], here["born"])
    assert not alive(here["pid"], here["born"] + 2)
    by_clock = psutil.Process().create_time()
    assert alive(here["pid"], by_clock), "as owners were noted before"
    real = psutil.Process.create_time
    monkeypatch.setattr(
        psutil.Process, "create_time", lambda self: real(self) + 3600
    )  # psutil adds the clock's time
    assert owner()["born"] == here["born"]
    assert alive(here["pid"], here["born"])


def test_a_library_that_names_semaphores_its_own_way_is_no_hindrance(monkeypatch):
    """joblib's loky does so from its import on, which comes with ogb's Evaluator."""
    monkeypatch.setattr(
        SemLock, "_make_name", staticmethod(lambda: f"/loky-{os.getpid()}-{next(SemLock._rand)}")
    )
    before = named(os.getpid())
    with owned():
        mine = get_context("spawn").Lock()
    other = get_context("spawn").Lock()
    assert len(named(os.getpid()) - before) == 1
    assert other._semlock.name.startswith("/loky-")
    del mine


@pytest.mark.long
def test_a_run_clears_what_a_killed_run_left(tmp_path):
    recipe = write_recipe(tmp_path, nodes=300)
    command = [sys.executable, "-m", "stockpot.cli", "run", str(recipe), "ingest"]
    root = str(Path(__file__).resolve().parents[2])
    options = {
        "cwd": tmp_path,
        "env": {**os.environ, "PYTHONPATH": root},
        "start_new_session": True,
    }
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, **options) as driver,
    ):
        until = time.monotonic() + 300
        while not named(driver.pid) and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert named(driver.pid)
    again = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)
    assert again.wait(600) == 0
    assert not named(driver.pid)
    assert not named(again.pid)
