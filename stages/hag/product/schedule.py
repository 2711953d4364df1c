"""The order in which a CPU computes the levels of a HAG in place: the same sums bit by bit for any
number of threads.

Where rows fall into sections that share no aggregation node (the graphs of a collection), each
section is computed whole, its partial sums in a small buffer that stays in the cache: no level is a
pass over memory. One large section is cut by levels where there are several threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.hag.product.simd_sums import sum_1, sum_4, sum_16, sum_64
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.threads import pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.hag.hag import Hag

__all__ = ["Schedule", "extremes", "extremes_back", "schedule", "sums"]

TASK_READS = 16_384
"""Reads of a task, of which a section is one or many make one: its buffer fits a cache, its
overhead vanishes."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """Tasks over one CSR of aggregation nodes, then results.

    Attributes
    ----------
    rows, cols, aggs : results, columns, aggregation nodes.
    indptr : i8[aggs + rows + 1], entries of every aggregation node, in the order of tasks, then of
        every result.
    mid : i8[aggs + rows], where a row's entries of the buffer begin; those before are columns.
    indices : u4[reads], columns, or rows of the task's buffer.
    tasks : i8[T, 5], aggregation nodes first..last, rows first..last, and the node that is row 0 of
        its buffer.
    waves : tasks that may run at the same time: waves[w]..waves[w + 1].
    buffer_rows : rows of the largest buffer. shared : whether all tasks have one buffer, else each
        thread its own.
    """

    rows: int
    cols: int
    aggs: int
    indptr: NDArray[np.int64]
    mid: NDArray[np.int64]
    indices: NDArray[np.uint32]
    tasks: NDArray[np.int64]
    waves: tuple[int, ...]
    buffer_rows: int
    shared: bool


@njit(cache=True, nogil=True)
def _sections(
    num_nodes: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    most: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows where tasks end, i8[T]; task of every aggregation node): tasks share no aggregation
    node.

    Consecutive sections make a task until it has `most` reads.
    """
    rows, aggs = out_indptr.size - 1, indptr.size - 1
    first, last = np.full(aggs, rows, np.int64), np.full(aggs, -1, np.int64)
    for i in range(rows):
        for k in range(out_indptr[i], out_indptr[i + 1]):
            j = out_indices[k] - num_nodes
            if j >= 0:
                first[j] = min(first[j], i)
                last[j] = max(last[j], i)
    for j in range(aggs - 1, -1, -1):
        for k in range(indptr[j], indptr[j + 1]):
            m = indices[k] - num_nodes
            if m >= 0:
                first[m] = min(first[m], first[j])
                last[m] = max(last[m], last[j])
    reach, reads = np.full(rows + 1, -1, np.int64), np.zeros(rows + 1, np.int64)
    for j in range(aggs):
        if (
            last[j] < 0
        ):  # needed by no result: computed with the first row, for the count to stay whole
            first[j] = last[j] = 0
        reach[first[j]] = max(reach[first[j]], last[j])
        reads[first[j]] += indptr[j + 1] - indptr[j]
    ends = np.empty(rows, np.int64)
    task_of_row = np.empty(rows + 1, np.int64)
    tasks, far, sum_reads = 0, -1, 0
    for i in range(rows):
        far = max(far, reach[i])
        sum_reads += reads[i] + out_indptr[i + 1] - out_indptr[i]
        task_of_row[i] = tasks
        if far <= i and (sum_reads >= most or i + 1 == rows):
            ends[tasks] = i + 1
            tasks += 1
            sum_reads = 0
    task = np.empty(aggs, np.int64)
    for j in range(aggs):
        task[j] = task_of_row[first[j]]
    return ends[:tasks], task


@njit(cache=True, nogil=True)
def _arrange(
    num_nodes: int,
    order: NDArray[np.int64],
    local: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    out_weight: NDArray[np.int32],
    flat_indptr: NDArray[np.int64],
    mid: NDArray[np.int64],
    flat: NDArray[np.uint32],
) -> None:
    """Aggregation nodes in `order`, then results, a multiplicity as so many entries; buffer rows by
    `local`.
    """
    aggs, rows = order.size, out_indptr.size - 1
    end = 0
    for r in range(aggs + rows):
        of_agg = r < aggs
        ptr, columns = (indptr, indices) if of_agg else (out_indptr, out_indices)
        times = weight if of_agg else out_weight
        i = order[r] if of_agg else r - aggs
        mid[r] = -1
        for k in range(ptr[i], ptr[i + 1]):
            b = columns[k]
            if b >= num_nodes and mid[r] < 0:
                mid[r] = end
            for _ in range(times[k] if times.size else 1):
                flat[end] = b if b < num_nodes else local[b - num_nodes]
                end += 1
        if mid[r] < 0:
            mid[r] = end
        flat_indptr[r + 1] = end


def schedule(hag: Hag, threads: int = 1) -> Schedule:
    """Tasks of a HAG for this many threads. O(reads); the sums do not depend on `threads`."""
    aggs, rows = hag.num_aggregations, hag.num_rows
    ends, task = _sections(
        hag.num_nodes, hag.indptr, hag.indices, hag.out_indptr, hag.out_indices, TASK_READS
    )
    order, local = np.arange(aggs), np.arange(aggs)
    row_ends = np.concatenate([[0], ends]).astype(np.int64)
    by_levels = (
        threads > 1 and (np.diff(row_ends) * 2 * threads > rows).any() and hag.reads > TASK_READS
    )
    if by_levels:
        tasks, waves = _by_levels(hag, threads)
    else:
        order = np.argsort(task, kind="stable")
        count = np.bincount(task, minlength=len(ends))
        starts = np.concatenate([[0], np.cumsum(count)])
        local[order] = np.arange(aggs) - np.repeat(starts[:-1], count)
        tasks = np.stack(
            [starts[:-1], starts[1:], row_ends[:-1], row_ends[1:], starts[:-1]], 1
        ).astype(np.int64)
        waves = (0, len(tasks))
    none = np.zeros(0, np.int32)
    weight, out_weight = (none if w is None else w for w in (hag.weight, hag.out_weight))
    reads = sum(
        len(i) if w is None else int(w.sum())
        for i, w in ((hag.indices, hag.weight), (hag.out_indices, hag.out_weight))
    )
    indptr, mid, indices = (
        np.zeros(aggs + rows + 1, np.int64),
        np.empty(aggs + rows, np.int64),
        np.empty(reads, np.uint32),
    )
    _arrange(
        hag.num_nodes,
        order,
        local,
        hag.indptr,
        hag.indices,
        weight,
        hag.out_indptr,
        hag.out_indices,
        out_weight,
        indptr,
        mid,
        indices,
    )
    buffer_rows = int((tasks[:, 1] - tasks[:, 4]).max(initial=0))
    return Schedule(
        rows, hag.num_nodes, aggs, indptr, mid, indices, tasks, waves, buffer_rows, bool(by_levels)
    )


def _by_levels(hag: Hag, threads: int) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Every level, then the results, as one wave of tasks of equal reads."""
    tasks: list[tuple[int, int, int, int, int]] = []
    waves = [0]
    for start, stop in zip(hag.level_ptr[:-1].tolist(), hag.level_ptr[1:].tolist(), strict=True):
        tasks += [(a, b, 0, 0, 0) for a, b in _cuts(hag.indptr, start, stop, threads)]
        waves.append(len(tasks))
    tasks += [(0, 0, a, b, 0) for a, b in _cuts(hag.out_indptr, 0, hag.num_rows, 4 * threads)]
    waves.append(len(tasks))
    return np.array(tasks, np.int64).reshape(-1, 5), tuple(waves)


def _cuts(indptr: NDArray[np.int64], start: int, stop: int, parts: int) -> list[tuple[int, int]]:
    """Rows start..stop in at most `parts` runs of about equal entries (each row counts as one
    more).
    """
    done = indptr[start : stop + 1] + np.arange(stop - start + 1)
    goals = done[0] + (done[-1] - done[0]) * np.arange(1, parts) // parts
    ends = np.unique(np.concatenate([[0], np.searchsorted(done, goals), [stop - start]])) + start
    return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))


@njit(cache=True, nogil=True)
def _sum_tasks(
    tasks: NDArray[np.int64],
    aggs: int,
    indptr: NDArray[np.int64],
    mid: NDArray[np.int64],
    indices: NDArray[np.uint32],
    x: NDArray[Any],
    right: NDArray[Any],
    left: NDArray[Any],
    buffer: NDArray[Any],
    out: NDArray[Any],
    dim: int,
) -> None:
    for t in range(tasks.shape[0]):
        first, last, row, end, base = (
            tasks[t, 0],
            tasks[t, 1],
            tasks[t, 2],
            tasks[t, 3],
            tasks[t, 4],
        )
        for part in range(2):
            start, stop = (first, last) if part == 0 else (aggs + row, aggs + end)
            target = buffer if part == 0 else out
            offset = base if part == 0 else aggs
            for r in range(start, stop):
                scale = left.dtype.type(1) if part == 0 else left[r - aggs]
                a, m, b = indptr[r], mid[r], indptr[r + 1]
                at, off = (r - offset) * dim, 0
                while off + 64 <= dim:
                    sum_64(x, right, buffer, indices, a, m, b, dim, off, scale, target, at + off)
                    off += 64
                while off + 16 <= dim:
                    sum_16(x, right, buffer, indices, a, m, b, dim, off, scale, target, at + off)
                    off += 16
                while off + 4 <= dim:
                    sum_4(x, right, buffer, indices, a, m, b, dim, off, scale, target, at + off)
                    off += 4
                while off < dim:
                    sum_1(x, right, buffer, indices, a, m, b, dim, off, scale, target, at + off)
                    off += 1


def sums(
    plan: Schedule,
    x: NDArray[Any],
    right: NDArray[Any],
    left: NDArray[Any],
    out: NDArray[Any],
    threads: int = 1,
) -> None:
    """`out = left * A @ (right * x)`, A the CSR of the HAG.

    Parameters
    ----------
    x : f4|f8[cols, dim], C order; right, left : of its type, [cols], [rows].
    out : of its type, [rows, dim], C order, filled.

    Notes
    -----
    O(reads dim). Each result is added in one fixed order, whatever `threads`.
    """
    dim = x.shape[1]
    flat, target = x.reshape(-1), out.reshape(-1)

    def work(first: int, last: int, buffer: NDArray[Any]) -> None:
        _sum_tasks(
            plan.tasks[first:last], plan.aggs, plan.indptr, plan.mid, plan.indices,
            flat, right, left, buffer, target, dim,
        )  # fmt: skip

    _waves(plan, threads, lambda: np.empty(plan.buffer_rows * dim, x.dtype), work)


def _waves(plan: Schedule, threads: int, make: Any, work: Any) -> None:
    """Run the tasks of every wave, cut into a run of tasks for each thread; buffers come from
    `make`.
    """
    mine = make()
    executor = pool(threads - 1) if threads > 1 else None
    for w in range(len(plan.waves) - 1):
        first, last = plan.waves[w], plan.waves[w + 1]
        parts = min(threads, last - first)
        if executor is None or parts <= 1:
            work(first, last, mine)
            continue
        ends = [first + (last - first) * p // parts for p in range(parts + 1)]
        others = [
            executor.submit(work, ends[p], ends[p + 1], mine if plan.shared else make())
            for p in range(1, parts)
        ]
        work(ends[0], ends[1], mine)
        for other in others:
            other.result()


@njit(cache=True, nogil=True)
def _extreme_tasks(
    tasks: NDArray[np.int64],
    aggs: int,
    indptr: NDArray[np.int64],
    mid: NDArray[np.int64],
    indices: NDArray[np.uint32],
    x: NDArray[Any],
    sign: int,
    buffer: NDArray[Any],
    buffer_arg: NDArray[np.int32],
    out: NDArray[Any],
    arg: NDArray[np.int32],
) -> None:
    dim = x.shape[1]
    for t in range(tasks.shape[0]):
        first, last, row, end, base = (
            tasks[t, 0],
            tasks[t, 1],
            tasks[t, 2],
            tasks[t, 3],
            tasks[t, 4],
        )
        for part in range(2):
            start, stop = (first, last) if part == 0 else (aggs + row, aggs + end)
            offset = base if part == 0 else aggs
            values, places = (buffer, buffer_arg) if part == 0 else (out, arg)
            for r in range(start, stop):
                i = r - offset
                values[i] = 0
                places[i] = -1
                for k in range(indptr[r], indptr[r + 1]):
                    c = indices[k]
                    in_buffer = k >= mid[r]
                    for f in range(dim):
                        value = buffer[c, f] if in_buffer else x[c, f]
                        place = buffer_arg[c, f] if in_buffer else np.int32(c)
                        best, old = values[i, f], places[i, f]
                        # Not a number wins; of equal ones the smaller column, as if all columns
                        # were read in order.
                        unlike = np.isnan(value) != np.isnan(best)
                        better = (
                            old < 0 or sign * value > sign * best or (unlike and np.isnan(value))
                        )
                        tie = place < old and (value == best or (np.isnan(value) and not unlike))
                        if better or tie:
                            values[i, f] = value
                            places[i, f] = place


def extremes(
    plan: Schedule,
    x: NDArray[Any],
    sign: int,
    out: NDArray[Any],
    arg: NDArray[np.int32],
    threads: int = 1,
) -> None:
    """Largest (sign 1) or smallest (-1) value of every row's columns, bit-equal to that over the
    plain CSR.

    Parameters
    ----------
    x : f4|f8[cols, dim], C order.
    out : of its type, [rows, dim], filled; 0 where a row is empty.
    arg : i4[rows, dim], filled: the first column that has the value; -1 where a row is empty.
    """
    dim = x.shape[1]

    def make() -> Any:
        return np.empty((plan.buffer_rows, dim), x.dtype), np.empty(
            (plan.buffer_rows, dim), np.int32
        )

    def work(first: int, last: int, buffers: Any) -> None:
        _extreme_tasks(
            plan.tasks[first:last],
            plan.aggs,
            plan.indptr,
            plan.mid,
            plan.indices,
            x,
            sign,
            *buffers,
            out,
            arg,
        )

    _waves(plan, threads, make, work)


@njit(cache=True, nogil=True)
def extremes_back(arg: NDArray[np.int32], grad: NDArray[Any], out: NDArray[Any]) -> None:
    """Add every gradient to the column its value came from: out[arg[i, f], f] += grad[i, f], rows
    in order.
    """
    for i in range(arg.shape[0]):
        for f in range(arg.shape[1]):
            if arg[i, f] >= 0:
                out[arg[i, f], f] += grad[i, f]
