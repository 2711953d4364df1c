"""Memory of a block of code is measured while it runs: growth of this process's anonymous memory, sampled."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Peak"]

_SAMPLE_S = 0.02


class Peak:
    """Context manager; `bytes` is the largest growth seen, and at least the `bytes` it was given to start from."""

    def __init__(self, least: int = 0) -> None:
        import psutil

        self.bytes = least
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stockpot-soup-memory", daemon=True)
        self._start = 0

    def __enter__(self) -> Self:
        self._start = self._now()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _now(self) -> int:
        memory = self._process.memory_info()
        return int(memory.rss - getattr(memory, "shared", 0))

    def _sample(self) -> None:
        self.bytes = max(self.bytes, self._now() - self._start)

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._sample()
