"""Worker processes that run one task at a time, die with the driver, and never decide what is run twice.

The only module that imports Dask. It starts processes, watches them and hands results back; what a result means,
and whether a lost task is tried again, is `pipeline.run`'s business: exactly-once comes from the store.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import queue
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.usage import own_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Cluster", "Outcome"]

_PR_SET_PDEATHSIG = 1
_CLOSE_S = 10


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


class Cluster:
    """A local Dask cluster of single-threaded processes.

    Parameters
    ----------
    workers : processes.
    memory_bytes : a worker that grows past it is killed (and its task reported lost) before the machine swaps.
    cores : upper bound for the threads of one task.
    """

    def __init__(self, workers: int, memory_bytes: int, cores: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        # Native libraries read these once, at import; a task raises its own share through torch and numba.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        dask.config.set(
            {
                "distributed.nanny.pre-spawn-environ": {
                    **threads,
                    "NUMBA_NUM_THREADS": str(cores),
                    # A training step frees and takes the same few megabytes again and again: glibc would give each
                    # back to the kernel and fault it in anew, a third of the time of an epoch (measured).
                    "MALLOC_MMAP_THRESHOLD_": "33554432",
                    "MALLOC_TRIM_THRESHOLD_": "268435456",
                    "MALLOC_TOP_PAD_": "67108864",
                },
                "distributed.worker.multiprocessing-method": "spawn",
                "distributed.worker.daemon": False,  # METIS runs in a child of its own
                "distributed.worker.memory.target": False,
                "distributed.worker.memory.spill": False,
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.terminate": False,  # would count memory maps; see `_mind_memory`
                "distributed.worker.profile.enabled": False,
                "distributed.scheduler.allowed-failures": 0,  # lost tasks are counted and retried by the driver
                "distributed.scheduler.worker-ttl": None,  # a kernel may hold the interpreter for minutes
                "distributed.scheduler.worker-saturation": 1.0,
                "distributed.scheduler.http.routes": [],
                "distributed.worker.http.routes": [],
                "distributed.admin.tick.limit": "1h",
                "distributed.comm.timeouts.connect": "120s",
                "logging": {"distributed": "critical", "asyncio": "critical", "tornado": "critical"},
            }
        )
        # Passed on to child processes: after a kill -9 the semaphore tracker would speak up when nobody listens.
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")
        for name in ("distributed", "asyncio", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._futures: dict[str, Any] = {}
        self._serial = 0
        self._memory_bytes = memory_bytes
        preload = list(dask.config.get("distributed.worker.preload", []))
        self._cluster: Any = None
        self._client: Any = None
        try:
            with _blocked(signal.SIGINT, signal.SIGTERM):
                self._cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=memory_bytes,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    host="127.0.0.1",
                    # Dask opens a web port in any case: a free one, on this machine only, that serves nothing.
                    scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                    preload=["pipeline.cluster", *preload],
                )
                self._client = Client(self._cluster, set_as_default=False)
        except BaseException:  # a signal held back while starting arrives here
            self.close(now=True)
            raise

    def submit(self, tag: Any, function: Callable[..., Any], *args: Any) -> None:
        """Start `function(*args)` on a free worker; its `Outcome` will carry `tag`."""
        self._serial += 1
        key = f"task-{self._serial}"
        future = self._client.submit(_guarded, function, args, key=key, pure=False)
        self._futures[key] = future
        future.add_done_callback(lambda done: self._done(tag, key, done))

    def _done(self, tag: Any, key: str, future: Any) -> None:
        # Runs on a thread of the client.
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
            outcome = Outcome(tag, error=error)
        self._outcomes.put(outcome)
        future.release()
        self._futures.pop(key, None)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes that have arrived, at least one unless `timeout_s` passes."""
        self._mind_memory()
        found: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._outcomes.get(timeout=timeout_s))
            while True:
                found.append(self._outcomes.get_nowait())
        return found

    def _mind_memory(self) -> None:
        """Kill a worker whose own memory has grown past the limit.

        Dask would count pages of mapped files too, which the system takes back whenever it needs them: a worker that
        reads an artifact larger than the limit would die of it.
        """
        for nanny in list(self._cluster.workers.values()):
            if (pid := getattr(nanny, "pid", None)) is not None and own_bytes(pid) > self._memory_bytes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self, *, now: bool = False) -> None:
        """Stop every process; `now` kills tasks in flight, children included (what they published stays)."""
        groups = []
        for nanny in list(self._cluster.workers.values()) if self._cluster is not None else []:
            nanny.auto_restart = False
            if (pid := getattr(nanny, "pid", None)) is not None:
                groups.append(pid)
        if now:
            _kill_groups(groups)
        for part in (self._client, self._cluster):
            if part is not None:
                with contextlib.suppress(Exception):
                    part.close(timeout=_CLOSE_S)
        _kill_groups(groups)


def _kill_groups(groups: list[int]) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def _blocked(*numbers: int) -> Iterator[None]:
    """Threads and processes started inside never get these signals: they are the driver's main thread's to handle.

    Dask's threads are started inside, and so restart workers with the same mask later.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _guarded(function: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    """Run in the worker; an exception comes back as a value, with the worker's traceback as text."""
    try:
        return {"value": function(*args)}
    except Exception as error:  # noqa: BLE001 - carried to the driver whole
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, just made
        except Exception:  # noqa: BLE001 - whatever cannot travel goes as text
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return {"error": error, "trace": trace}


def dask_setup(worker: Any) -> None:
    """Preload hook, in every worker: a process group of its own that dies with the driver.

    The kernel kills the worker when the driver goes, even while a kernel holds the interpreter; Dask's own check is
    a Python thread.
    """
    del worker
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # how Dask ends a worker
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
