"""Kernels that release the interpreter run on as many threads as torch uses; each span is of one
thread alone.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["on_spans", "spans"]


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked child has its own."""
    del process
    return ThreadPoolExecutor(threads, thread_name_prefix="stockpot-kernel")


def spans(count: int, work: int, align: int = 1) -> list[tuple[int, int]]:
    """`count` items cut into about equal spans, one a thread of torch; one span where `work` is not
    worth a thread.
    """
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
    pool = _pool(os.getpid(), torch.get_num_threads())
    for done in [pool.submit(kernel, a, b, *arrays) for a, b in parts]:
        done.result()
