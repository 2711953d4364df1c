"""Memory of a block of code is measured while it runs: growth of this process's anonymous memory,
sampled.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Peak", "anonymous_bytes"]

_SAMPLE_S = 0.02


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    import psutil

    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class Peak:
    """Context manager; `bytes` is the largest growth seen, `since` some earlier `anonymous_bytes`
    where given.
    """

    def __init__(self, since: int | None = None) -> None:
        self.bytes = 0
        self._start = anonymous_bytes() if since is None else since
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="stockpot-soup-memory", daemon=True
        )

    def __enter__(self) -> Self:
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

    def _sample(self) -> None:
        self.bytes = max(self.bytes, anonymous_bytes() - self._start)

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._sample()
