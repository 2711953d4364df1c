"""The memory figure of a task is its own: anonymous memory of its process and children, above the
start.

File-backed pages of memory maps are left out: the system takes them back whenever it needs them.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Usage", "give_back", "own_bytes"]

SAMPLE_S = 0.05
CHILDREN_EVERY = 10


class Usage:
    """Context manager that samples memory on a thread of its own.

    Attributes
    ----------
    peak_bytes : largest anonymous memory seen, minus that at the start.
    max_rss_bytes : largest resident memory of this process since it began, as the system counts it.
    """

    def __init__(self) -> None:
        import psutil

        self.peak_bytes = 0
        self.max_rss_bytes = 0
        self._gone = psutil.Error
        self._process = psutil.Process()
        self._children_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stockpot-usage", daemon=True)
        self._start_bytes = 0

    def __enter__(self) -> Self:
        give_back()
        self._children_bytes = self._of_children()
        self._start_bytes = _anonymous(self._process) + self._children_bytes
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self.max_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _watch(self) -> None:
        turn = 0
        while not self._stop.wait(SAMPLE_S):
            if turn % CHILDREN_EVERY == 0:
                self._children_bytes = self._of_children()
            turn += 1
            self._sample()

    def _sample(self) -> None:
        now = _anonymous(self._process) + self._children_bytes
        self.peak_bytes = max(self.peak_bytes, now - self._start_bytes)

    def _of_children(self) -> int:
        total = 0
        with suppress(self._gone):
            for child in self._process.children(recursive=True):
                with suppress(self._gone):
                    total += _anonymous(child)
        return total


def give_back() -> None:
    """Return what earlier tasks freed to the system: kept for reuse, it would count as the next
    task's start.
    """
    gc.collect()
    with suppress(AttributeError, OSError):  # another libc has no such call
        ctypes.CDLL(None).malloc_trim(0)


def own_bytes(pid: int) -> int:
    """Anonymous memory of a process; 0 where it is gone."""
    import psutil

    with suppress(psutil.Error):
        return _anonymous(psutil.Process(pid))
    return 0


def _anonymous(process: object) -> int:
    memory = process.memory_info()  # type: ignore[attr-defined]
    return int(memory.rss - getattr(memory, "shared", 0))
