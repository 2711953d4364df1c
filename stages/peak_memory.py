"""Memory of a block of code is measured while it runs: growth of this process's anonymous memory,
sampled.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PeakMemory", "anonymous_bytes"]


def anonymous_bytes(process: Any = None) -> int:
    """Memory of a `psutil.Process` that no file stands behind; of this one where none is given."""
    import psutil

    memory = (process or psutil.Process()).memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class PeakMemory:
    """Context manager that samples memory on a thread of its own.

    Parameters
    ----------
    since : an earlier `anonymous_bytes` from which growth counts; None: that of the start.

    Attributes
    ----------
    peak_bytes : largest anonymous memory seen, minus that at the start.
    """

    every_s = 0.02

    def __init__(self, since: int | None = None) -> None:
        self.peak_bytes = 0
        self._since = since
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stockpot-memory", daemon=True)

    def __enter__(self) -> Self:
        self._start = self.now() if self._since is None else self._since
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

    def now(self) -> int:
        """Memory that counts, in bytes."""
        return anonymous_bytes()

    def _watch(self) -> None:
        while not self._stop.wait(self.every_s):
            self._sample()

    def _sample(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.now() - self._start)
