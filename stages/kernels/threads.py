"""Work on several threads: pieces in order, workers, spans of kernels that hold no Python lock."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["by_workers", "in_order", "on_spans", "pool", "spans"]


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    del process
    return ThreadPoolExecutor(threads, thread_name_prefix="stockpot-kernel")


def pool(threads: int) -> ThreadPoolExecutor:
    """So many threads of this process that stay; a forked child has its own."""
    return _pool(os.getpid(), threads)


def spans(count: int, work: int, align: int = 1) -> list[tuple[int, int]]:
    """`count` items cut into about equal spans, one a thread of torch; one span where `work` is not
    worth a thread.
    """
    import torch  # for whoever multiplies by tensors; others have no need of it

    threads = torch.get_num_threads()
    if threads == 1 or work < 1 << 18:
        return [(0, count)]
    ends = [min(count, -(-count * i // threads // align) * align) for i in range(threads + 1)]
    return [(a, b) for a, b in pairwise(ends) if a < b] or [(0, count)]


def on_spans(parts: Sequence[tuple[int, int]], kernel: Callable[..., None], *arrays: Any) -> None:
    """Call `kernel(start, stop, *arrays)` for every span, at once where there are several."""
    if len(parts) == 1:
        kernel(*parts[0], *arrays)
        return
    import torch

    threads = pool(torch.get_num_threads())
    for done in [threads.submit(kernel, a, b, *arrays) for a, b in parts]:
        done.result()


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


def by_workers(work: Callable[[int, int], None], threads: int) -> None:
    """Call `work(worker, workers)` in each of so many threads; the first error of any is raised."""
    workers = max(1, threads)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers), [workers] * workers))
