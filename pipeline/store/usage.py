"""The memory figure of a task is its own: anonymous memory of its process and children, above the
start.

File-backed pages of memory maps are left out: the system takes them back whenever it needs them.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from contextlib import suppress
from typing import Self

from stockpot.stages.peak_memory import PeakMemory, anonymous_bytes

__all__ = ["Usage", "give_back", "own_bytes"]

CHILDREN_EVERY = 10


class Usage(PeakMemory):
    """Memory of a task, its children included, which are looked at in every tenth sample.

    Attributes
    ----------
    max_rss_bytes : largest resident memory of this process since it began, as the system counts it.
    """

    every_s = 0.05

    def __init__(self) -> None:
        import psutil

        super().__init__()
        self.max_rss_bytes = 0
        self._gone = psutil.Error
        self._process = psutil.Process()
        self._children_bytes = self._turn = 0

    def __enter__(self) -> Self:
        give_back()
        return super().__enter__()

    def __exit__(self, *how: object) -> None:
        super().__exit__(*how)  # type: ignore[arg-type]
        self.max_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def now(self) -> int:
        """Memory of the process now, and of its children when they were last looked at."""
        if self._turn % CHILDREN_EVERY == 0:
            self._children_bytes = self._of_children()
        self._turn += 1
        return anonymous_bytes(self._process) + self._children_bytes

    def _of_children(self) -> int:
        total = 0
        with suppress(self._gone):
            for child in self._process.children(recursive=True):
                with suppress(self._gone):
                    total += anonymous_bytes(child)
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
        return anonymous_bytes(psutil.Process(pid))
    return 0
