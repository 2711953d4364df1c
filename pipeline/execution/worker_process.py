"""What a worker process is: its group, its allocator, and how a task's function is called in it.

Dask imports this module in every worker that it starts, and finds `dask_setup`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pickle
import signal
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ALLOCATOR",
    "ONE_TASK",
    "beside",
    "dask_setup",
    "guarded",
    "kill_groups",
    "tune_allocator",
]

_PR_SET_PDEATHSIG = 1
ALLOCATOR = {
    # A training step frees and takes the same few megabytes again and again: glibc would give each
    # back to the kernel and fault it in anew, a third of the time of an epoch (measured). Name ->
    # (mallopt's number, bytes).
    "MALLOC_MMAP_THRESHOLD_": (-3, 33554432),
    "MALLOC_TRIM_THRESHOLD_": (-1, 268435456),
    "MALLOC_TOP_PAD_": (-2, 67108864),
}
ONE_TASK = threading.Lock()
"""Limits of threads and figures of memory are a process's: a worker of several Dask threads still
runs one task."""


def dask_setup(worker: Any) -> None:
    """Preload hook, in every local worker: a process group of its own that dies with the driver.

    The kernel kills the worker when the driver goes, even while a kernel holds the interpreter;
    Dask's own check is a Python thread.
    """
    del worker
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # how Dask ends a worker
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def guarded(function: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    """Run in the worker; an exception comes back as a value, with the worker's traceback as
    text.
    """
    try:
        return {"value": function(*args)}
    except Exception as error:  # noqa: BLE001 - carried to the driver whole
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, just made
        except Exception:  # noqa: BLE001 - whatever cannot travel goes as text
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return {"error": error, "trace": trace}


def tune_allocator() -> None:
    """Keep the memory that a training step frees and takes again, in a worker of others."""
    with contextlib.suppress(AttributeError, OSError):  # another libc has no such call
        libc = ctypes.CDLL(None)
        for number, size in ALLOCATOR.values():
            libc.mallopt(number, size)


async def beside(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Run on a thread of its own, so that a hanging file system does not hang the worker."""
    return await asyncio.to_thread(function, *args)


def kill_groups(groups: list[int]) -> None:
    """Kill whole process groups, those that are gone excepted."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
