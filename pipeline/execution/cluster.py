"""Worker processes, and nothing about what they compute: tasks are started, their ends reported,
none runs on unwanted.

The only module that imports Dask. What a result means, and whether a lost task is tried again, is
`run`'s business: exactly-once comes from the store. Which worker takes which task is
`stockpot.execution.workers`'.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
import uuid
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput, StockpotError
from stockpot.execution.interrupt import Unwanted, while_wanted
from stockpot.execution.semaphores import owned
from stockpot.execution.worker_process import (
    ALLOCATOR,
    ONE_TASK,
    beside,
    guarded,
    kill_groups,
    tune_allocator,
)
from stockpot.stages.replace import replacing
from stockpot.store.usage import give_back, own_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Cluster", "Member", "Outcome", "connect", "start_local"]

_CLOSE_S = 10
_CONNECT_S = 5
_SCALE_S = 60
_ALONE_S = 120


@dataclass(frozen=True)
class Outcome:
    """How one submitted call ended.

    Attributes
    ----------
    tag : what `submit` was given.
    value : its result, where it returned.
    error : its exception, where it raised; `trace` is the worker's traceback.
    lost : the worker died under it.
    """

    tag: Any
    value: Any = None
    error: BaseException | None = None
    trace: str = ""
    lost: bool = False


@dataclass(frozen=True)
class Member:
    """A worker as the scheduler tells of it; `memory_bytes` is its limit, 0 where it has none."""

    address: str
    name: str
    threads: int
    memory_bytes: int
    paused: bool


class Cluster:
    """A Dask client and, where the workers are our own, the processes behind it; see `start_local`
    and `connect`.
    """

    def __init__(self, client: Any, local: Any = None, memory_bytes: int = 0) -> None:
        self._client = client
        self._local = local
        self._memory_bytes = memory_bytes
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._futures: dict[str, tuple[Any, Any]] = {}
        self._run = uuid.uuid4().hex[:8]
        self._serial = 0
        self._recording: tuple[float, int] | None = None
        self._alone: float | None = None
        self.ending = contextlib.ExitStack()
        """What is undone when it is closed."""

    @property
    def dashboard(self) -> str:
        """Address of Dask's own pages; "" where the scheduler serves none."""
        return str(self._client.dashboard_link or "")

    def submit(
        self, tag: Any, function: Callable[..., Any], *args: Any, worker: str | None = None
    ) -> None:
        """Start `function(*args)`, on that very worker or on any; its `Outcome` will carry
        `tag`.
        """
        self._serial += 1
        name = (
            str(getattr(args[0], "stage_name", "task")) if args else "task"
        )  # as Dask's pages show it
        key = f"{name}-{self._serial}-{self._run}"
        if worker is None:
            future = self._client.submit(guarded, function, args, key=key, pure=False)
        else:
            future = self._client.submit(
                _on_lent_worker,
                function,
                args,
                key=key,
                pure=False,
                workers=[worker],
                allow_other_workers=False,
            )
        self._futures[key] = tag, future
        future.add_done_callback(lambda _: self._done(key))

    def _done(self, key: str) -> None:
        # Runs on a thread of the client.
        tag, future = self._futures.get(key, (None, None))
        if future is None:
            return
        try:
            if future.status == "finished":
                outcome = Outcome(tag, **future.result(timeout=60))
            elif future.status == "error":
                error = future.exception(timeout=60)
                lost = type(error).__name__ in ("KilledWorker", "WorkerStartTimeoutError")
                outcome = Outcome(tag, error=error, lost=lost)
            else:
                outcome = Outcome(tag, lost=True)
        except Exception as error:  # noqa: BLE001 - nothing may be lost on this thread
            # The worker may die between the end of a task and the fetching of its result.
            gone = isinstance(error, (OSError, TimeoutError)) or "Cancelled" in type(error).__name__
            outcome = Outcome(tag, error=None if gone else error, lost=gone)
        if self._futures.pop(key, None) is not None:
            self._outcomes.put(outcome)
        future.release()

    def abandon(self, tag: Any) -> None:
        """Report the call of this tag as lost, now: its worker is gone."""
        for key, (of, future) in list(self._futures.items()):
            if of == tag and self._futures.pop(key, None) is not None:
                with contextlib.suppress(Exception):
                    future.cancel(force=True)
                self._outcomes.put(Outcome(tag, lost=True))

    def ask(self, tag: Any, worker: str, function: Callable[..., Any], *args: Any) -> None:
        """Run a short function on a worker at once, also while it is busy; `wait` brings the
        answer.
        """

        def run() -> None:
            try:
                found = self._client.run(
                    beside, function, args, workers=[worker], on_error="return"
                )
                answer = found[worker]
                failed = isinstance(answer, BaseException)
                outcome = Outcome(tag, error=answer) if failed else Outcome(tag, value=answer)
            except Exception as error:  # noqa: BLE001 - an answer too
                outcome = Outcome(tag, error=error)
            self._outcomes.put(outcome)

        threading.Thread(target=run, name="stockpot-ask", daemon=True).start()

    def ask_scheduler(self, function: Callable[..., Any], *args: Any) -> Any:
        """Result of a short function that runs in the scheduler."""
        return self._client.run_on_scheduler(function, *args)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes that have arrived, at least one unless `timeout_s` passes.

        Raises
        ------
        StockpotError
            All local workers have died, and none could be started again.
        """
        self._mind_memory()
        self._mind_loss()
        found: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._outcomes.get(timeout=timeout_s))
            while True:
                found.append(self._outcomes.get_nowait())
        return found

    def members(self) -> dict[str, Member]:
        """Workers the scheduler has now, by address.

        Raises
        ------
        StockpotError
            The scheduler does not answer.
        """
        try:
            if self._client.status != "running":
                raise OSError(f"connection {self._client.status}")
            found = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=30
            )
        except (OSError, TimeoutError) as error:
            where = self._client.scheduler.address if self._client.scheduler else "the scheduler"
            raise StockpotError(
                f"{where}: the scheduler is gone: {error}",
                fix="start it and its workers, then run the same command",
            ) from error
        return {
            address: Member(
                address,
                str(info["name"]),
                int(info["nthreads"]),
                int(info["memory_limit"] or 0),
                info["status"] == "paused",
            )
            for address, info in found["workers"].items()
        }

    def scale(self, workers: int) -> None:
        """Start or stop idle local workers until there are so many."""
        self._local.scale(workers)
        deadline = time.monotonic() + _SCALE_S
        while time.monotonic() < deadline:
            if len(self._local.workers) == len(self._local.scheduler.workers) == workers:
                return
            time.sleep(0.05)
        raise StockpotError(
            f"workers: expected {workers} within {_SCALE_S} s, found "
            f"{len(self._local.scheduler.workers)}",
            fix="run the same command again: it continues where it stopped",
        )

    def _mind_memory(self) -> None:
        """Kill a local worker whose own memory has grown past the limit.

        Dask would count pages of mapped files too, which the system takes back whenever it needs
        them: a worker that reads an artifact larger than the limit would die of it.
        """
        for nanny in list(self._local.workers.values()) if self._local is not None else []:
            if (pid := getattr(nanny, "pid", None)) is not None and own_bytes(
                pid
            ) > self._memory_bytes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _mind_loss(self) -> None:
        """Refuse to wait for workers that nobody starts again: Dask would, for ever and without a
        word.
        """
        if (
            self._local is None
            or not self._futures
            or self._outcomes.qsize()
            or self._local.scheduler.workers
        ):
            self._alone = None
            return
        self._alone = time.monotonic() if self._alone is None else self._alone
        if time.monotonic() - self._alone > _ALONE_S:
            raise StockpotError(
                f"workers: all processes have died, and none has come back within {_ALONE_S} s",
                fix="run the same command again: it continues where it stopped",
            )

    # --- Dask's own report

    def record(self) -> None:
        """Have the scheduler keep what `report` shows, from now on."""
        last = self._client.run_on_scheduler(_monitor_count)
        self._client.get_task_stream(start=0, stop=0)  # the plugin that records
        self._recording = time.time(), last

    def report(self, path: Path) -> None:
        """Write Dask's performance report since `record`: one HTML file that needs no network."""
        if self._recording is None:
            return
        start, last = self._recording
        page = self._client.sync(
            self._client.scheduler.performance_report,
            start=start,
            last_count=last,
            code="stockpot run",
            mode="inline",
            callback_timeout=120,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, synced=False) as partial:
            partial.write_text(page, encoding="utf-8")

    # --- the end

    def close(self, *, now: bool = False) -> None:
        """Stop our own processes, children included, and on a lent cluster only our tasks; what
        they published stays.

        `now` does not wait for tasks in flight.
        """
        groups = []
        for nanny in list(self._local.workers.values()) if self._local is not None else []:
            nanny.auto_restart = False
            if (pid := getattr(nanny, "pid", None)) is not None:
                groups.append(pid)
        if now:
            kill_groups(groups)
        if self._local is None and self._futures:
            with contextlib.suppress(Exception):
                self._client.cancel([future for _, future in self._futures.values()], force=True)
        self._futures.clear()
        for part in (self._client, self._local):
            if part is not None:
                with contextlib.suppress(Exception):
                    part.close(timeout=_CLOSE_S)
        kill_groups(groups)
        self.ending.close()


def start_local(workers: int, memory_bytes: int, cores: int) -> Cluster:
    """Start single-threaded worker processes on this machine; they die with this process.

    Parameters
    ----------
    workers : processes.
    memory_bytes : a worker that grows past it is killed (and its task reported lost) before the
        machine swaps.
    cores : upper bound for the threads of one task.
    """
    import dask
    from distributed import Client, LocalCluster

    # Native libraries read these once, at import; a task raises its own share through torch and
    # numba.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    dask.config.set(
        {
            "distributed.nanny.pre-spawn-environ": {
                **threads,
                "NUMBA_NUM_THREADS": str(cores),
                **{name: str(size) for name, (_, size) in ALLOCATOR.items()},
            },
            "distributed.worker.multiprocessing-method": "spawn",
            "distributed.worker.daemon": False,  # METIS runs in a child of its own
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            # would count memory maps; see `_mind_memory`
            "distributed.worker.memory.terminate": False,
            "distributed.worker.profile.enabled": False,
            # lost tasks are counted and retried by the driver
            "distributed.scheduler.allowed-failures": 0,
            # Dask gives up a worker that is not back so long after it died, though its nanny is
            # starting it: on a busy machine 15 seconds, the default, are soon over
            "distributed.deploy.lost-worker-timeout": "30d",
            # a kernel may hold the interpreter for minutes
            "distributed.scheduler.worker-ttl": None,
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
            "distributed.admin.tick.limit": "1h",
            "distributed.comm.timeouts.connect": "120s",
        }
    )
    _silence()
    # Passed on to child processes: after a kill -9 the semaphore tracker would speak up when nobody
    # listens.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    preload = list(dask.config.get("distributed.worker.preload", []))
    cluster = Cluster(None, memory_bytes=memory_bytes)
    cluster.ending.enter_context(owned())  # workers that are started again take semaphores too
    try:
        with _blocked(signal.SIGINT, signal.SIGTERM):
            # Set before its client is made, so that `close` ends it where the client fails.
            cluster._local = LocalCluster(  # noqa: SLF001
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=memory_bytes,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                host="127.0.0.1",
                # Dask opens a web port in any case: a free one, on this machine only, that serves
                # nothing.
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                preload=["stockpot.execution.worker_process", *preload],
            )
            cluster._client = Client(cluster._local, set_as_default=False)  # noqa: SLF001
    except BaseException:  # a signal held back while starting arrives here
        cluster.close(now=True)
        raise
    return cluster


def connect(address: str) -> Cluster:
    """Join a scheduler that runs somewhere, with workers that others started and will stop.

    Raises
    ------
    BadInput
        Nothing answers there within a few seconds.
    """
    from distributed import Client

    _silence()
    try:
        with _blocked(signal.SIGINT, signal.SIGTERM), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # other versions: the probe compares them, and says which and where
            client = Client(address, timeout=_CONNECT_S, set_as_default=False, name="stockpot")
    except (OSError, TimeoutError, ValueError) as error:
        raise BadInput(
            f"--scheduler {address}: no Dask scheduler answers there within {_CONNECT_S} s",
            fix=f"start one with `dask scheduler --port {address.rpartition(':')[2]}`, or run "
            f"without --scheduler",
        ) from error
    return Cluster(client)


def _silence() -> None:
    import dask

    dask.config.set(
        {"logging": {"distributed": "critical", "asyncio": "critical", "tornado": "critical"}}
    )
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _blocked(*numbers: int) -> Iterator[None]:
    """Threads and processes started inside never get these signals: they are the driver's main
    thread's to handle.

    Dask's threads are started inside, and so restart workers with the same mask later.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- what runs in workers and in the scheduler


def _on_lent_worker(function: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    """Run in a worker that others started: alone, only while its driver wants it, and leaving it as
    it was found.

    Dask never stops a running function: where the driver cancels the task or is gone, the call is
    ended here.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is not None and state.state != "cancelled"

    while not ONE_TASK.acquire(timeout=0.5):
        if not wanted():
            return {"error": Unwanted()}
    try:
        tune_allocator()
        return while_wanted(wanted, lambda: guarded(function, args))
    except Unwanted:
        return {"error": Unwanted()}
    finally:
        give_back()  # Dask gives no task to a worker whose memory looks full
        ONE_TASK.release()


def _monitor_count(dask_scheduler: Any) -> int:
    return int(dask_scheduler.monitor.count)
