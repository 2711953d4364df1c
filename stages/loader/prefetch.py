"""Work prepared ahead by one thread: in order, bounded, errors raised where they belong, nothing
left behind.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Prefetch"]


class Prefetch:
    """Results of `make` for each item, in order, prepared by one thread at most `ahead` items
    early.

    An exception of `make` is raised where its result would have come. `close` ends the thread;
    nothing is left behind.
    """

    def __init__(self, make: Callable[[Any], Any], items: Sequence[Any], ahead: int) -> None:
        self._make, self._items, self._ahead = make, items, ahead
        self._ready: deque[tuple[Any, BaseException | None]] = deque()
        self._turn = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="stockpot-prefetch", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for item in self._items:
            with self._turn:
                while len(self._ready) >= self._ahead and not self._closed:
                    self._turn.wait()
                if self._closed:
                    return
            try:
                result: tuple[Any, BaseException | None] = (self._make(item), None)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that iterates
                result = (None, error)
            with self._turn:
                self._ready.append(result)
                self._turn.notify_all()
            if result[1] is not None:
                return

    def __iter__(self) -> Iterator[Any]:
        for _ in self._items:
            with self._turn:
                while not self._ready:
                    self._turn.wait()
                value, error = self._ready.popleft()
                self._turn.notify_all()
            if error is not None:
                raise error
            yield value
            del value

    def close(self) -> None:
        """End the thread and drop what it prepared."""
        with self._turn:
            self._closed = True
            self._ready.clear()
            self._turn.notify_all()
        self._thread.join()
