"""Ctrl-C and SIGTERM end a command in one way: what is under way is stopped, one line is said, the
exit code is 130.

In a worker that goes on living, what is under way is a function in a thread: `while_wanted` ends
it.
"""

from __future__ import annotations

import ctypes
import queue
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from stockpot.stages.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Unwanted", "interruptible", "while_wanted"]

T = TypeVar("T")
ASK_EVERY_S = 0.5
AGAIN_S = 10.0
"""A library may swallow the first; what tidies up must have time."""


class Unwanted(BaseException):
    """Nobody waits for this call any more. No `Exception`: what handles errors of the work must not
    catch it.
    """


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise `Interrupted` once; a second one changes nothing."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted", fix="run the same command again: it continues where it stopped"
        ) from None
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def while_wanted(wanted: Callable[[], bool], call: Callable[[], T]) -> T:
    """Result of `call()`, run in this thread, which is ended soon after `wanted()` says no.

    It ends at its next step of Python: a kernel or a system call under way is finished first.

    Raises
    ------
    Unwanted
        It was ended.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()

    def watch() -> None:
        pause_s = ASK_EVERY_S
        while True:
            with suppress(queue.Empty):
                return stop.get(timeout=pause_s)
            if not wanted():
                raise_in(thread, ctypes.py_object(Unwanted))
                pause_s = AGAIN_S

    watcher = threading.Thread(target=watch, name="stockpot-wanted", daemon=True)

    def settle() -> None:
        """Nothing is raised in this thread from here on: what was sent and has not arrived is taken
        back.
        """
        stop.put(None)
        while watcher.is_alive():
            time.sleep(0.0005)
        raise_in(thread, None)

    try:
        try:
            watcher.start()
            return call()
        finally:
            settle()
    finally:
        # again: it may have been sent on the way into the first; the next one comes only AGAIN_S
        # later
        settle()
