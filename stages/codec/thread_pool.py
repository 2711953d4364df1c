"""Pieces of work on several threads, their results in the order of the pieces."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["in_order"]

A = TypeVar("A")
B = TypeVar("B")


def in_order(work: Callable[[A], B], pieces: Iterable[A], threads: int) -> Iterator[B]:
    """Results piece by piece, `threads` at work; no more than twice as many pieces are held."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
