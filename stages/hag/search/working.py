"""What is left to search: rows without columns too rare to be shared, by component, frequent
columns first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.kernels.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["live", "working_rows"]


@njit(cache=True, nogil=True)
def live(
    ptr: NDArray[np.int64], columns: NDArray[np.int32], num_columns: int, min_count: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Which rows hold two columns or more that stand in `min_count` such rows, and the rows of each
    column then.

    What falls away can be in no merge of `min_count` rows. Two passes: more would find little, and
    finding less is no error.

    Returns
    -------
    rows : b1[R]
    degree : i4[num_columns], number of live rows of each column, 0 where that is below `min_count`
    """
    rows = np.ones(len(ptr) - 1, np.bool_)
    degree = np.zeros(num_columns, np.int32)
    for c in columns:
        degree[c] += 1
    for _ in range(2):
        found = np.zeros(num_columns, np.int32)
        for u in range(len(rows)):
            held = 0
            for i in range(ptr[u], ptr[u + 1]):
                held += degree[columns[i]] >= min_count
            rows[u] = held > 1
            if held > 1:
                for i in range(ptr[u], ptr[u + 1]):
                    found[columns[i]] += 1
        for c in range(num_columns):
            degree[c] = found[c] if degree[c] >= min_count else 0
    for c in range(num_columns):
        if degree[c] < min_count:
            degree[c] = 0
    return rows, degree


@njit(cache=True, nogil=True)
def _components(
    ptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    rows: NDArray[np.bool_],
    degree: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Component of each column among the live ones, numbered by first row; -1 where the column is
    not live.
    """
    parent = np.arange(len(degree)).astype(np.int32)
    for u in range(len(rows)):
        if not rows[u]:
            continue
        root = -1
        for i in range(ptr[u], ptr[u + 1]):
            c = columns[i]
            if degree[c] == 0:
                continue
            while parent[c] != c:
                parent[c] = parent[parent[c]]
                c = parent[c]
            if root < 0:
                root = c
            elif c != root:
                low, high = min(c, root), max(c, root)
                parent[high] = low
                root = low
    number = np.full(len(degree), -1, np.int32)
    out = np.full(len(degree), -1, np.int32)
    found = 0
    for u in range(len(rows)):
        if not rows[u]:
            continue
        for i in range(ptr[u], ptr[u + 1]):
            c = columns[i]
            if degree[c] == 0:
                continue
            root = c
            while parent[root] != root:
                root = parent[root]
            if number[root] < 0:
                number[root] = found
                found += 1
            out[c] = number[root]
    return out


def working_rows(
    ptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    rows: NDArray[np.bool_],
    degree: NDArray[np.int32],
    whole: int,
) -> tuple[
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int64],
]:
    """Live rows over live columns, both sorted by component, columns in it by falling degree, then
    id. O(E).

    Parameters
    ----------
    ptr, columns : i8[D + 1], i4[E], CSR of the distinct rows.
    rows, degree : of `live`
    whole : below so many entries all is one component.

    Returns
    -------
    row_id, column_id : i4[R], i4[S], the distinct row and the column that each is
    lists_ptr, lists : i8[R + 1], i4, symbols 0..S-1 of each row, sorted
    t_ptr, t_lists : i8[S + 1], i4, rows of each symbol, sorted
    row_ends, column_ends : i8[C + 1], rows and symbols of each component
    """
    if len(columns) < whole:
        component = np.where(degree > 0, 0, -1).astype(np.int32)
    else:
        component = _components(ptr, columns, rows, degree)
    column_id = _sorted_columns(component, degree)
    symbol = np.full(len(degree), -1, np.int32)
    symbol[column_id] = np.arange(len(column_id), dtype=np.int32)
    row_component = _row_component(ptr, columns, rows, component)
    alive = np.flatnonzero(rows)
    row_id = alive[np.argsort(row_component[alive], kind="stable")].astype(np.int32)
    count = int(component.max(initial=-1)) + 1
    row_ends = np.searchsorted(row_component[row_id], np.arange(count + 1))
    column_ends = np.searchsorted(component[column_id], np.arange(count + 1))
    return (
        row_id,
        column_id,
        *_relabel(ptr, columns, row_id, symbol, len(column_id)),
        row_ends,
        column_ends,
    )


@njit(cache=True, nogil=True)
def _sorted_columns(component: NDArray[np.int32], degree: NDArray[np.int32]) -> NDArray[np.int32]:
    """Live columns by component, in it by falling degree, then by id: counted twice."""
    kept = 0
    most, last = np.int32(0), np.int32(0)
    for c in range(len(degree)):
        if component[c] >= 0:
            kept += 1
            most, last = max(most, degree[c]), max(last, component[c])
    by_degree, by_component = np.zeros(most + 2, np.int64), np.zeros(last + 2, np.int64)
    for c in range(len(degree)):
        if component[c] >= 0:
            by_degree[most - degree[c] + 1] += 1
            by_component[component[c] + 1] += 1
    for k in range(1, most + 2):
        by_degree[k] += by_degree[k - 1]
    for k in range(1, last + 2):
        by_component[k] += by_component[k - 1]
    falling, out = np.empty(kept, np.int32), np.empty(kept, np.int32)
    for c in range(len(degree)):
        if component[c] >= 0:
            falling[by_degree[most - degree[c]]] = c
            by_degree[most - degree[c]] += 1
    for column in falling:
        out[by_component[component[column]]] = column
        by_component[component[column]] += 1
    return out


@njit(cache=True, nogil=True)
def _row_component(
    ptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    rows: NDArray[np.bool_],
    component: NDArray[np.int32],
) -> NDArray[np.int32]:
    out = np.full(len(rows), -1, np.int32)
    for u in range(len(rows)):
        if rows[u]:
            for i in range(ptr[u], ptr[u + 1]):
                if component[columns[i]] >= 0:
                    out[u] = component[columns[i]]
                    break
    return out


@njit(cache=True, nogil=True)
def _relabel(
    ptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    row_id: NDArray[np.int32],
    symbol: NDArray[np.int32],
    num_symbols: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """CSR of some rows over some columns, and its transpose, all sorted: transposed twice by
    counting.
    """
    out_ptr = np.zeros(len(row_id) + 1, np.int64)
    t_ptr = np.zeros(num_symbols + 1, np.int64)
    for r, u in enumerate(row_id):
        held = 0
        for i in range(ptr[u], ptr[u + 1]):
            s = symbol[columns[i]]
            if s >= 0:
                held += 1
                t_ptr[s + 1] += 1
        out_ptr[r + 1] = out_ptr[r] + held
    for s in range(num_symbols):
        t_ptr[s + 1] += t_ptr[s]
    t_lists, at = np.empty(t_ptr[-1], np.int32), t_ptr[:-1].copy()
    for r, u in enumerate(row_id):
        for i in range(ptr[u], ptr[u + 1]):
            s = symbol[columns[i]]
            if s >= 0:
                t_lists[at[s]] = r
                at[s] += 1
    lists, place = np.empty(t_ptr[-1], np.int32), out_ptr[:-1].copy()
    for s in range(num_symbols):
        for i in range(t_ptr[s], t_ptr[s + 1]):
            r = t_lists[i]
            lists[place[r]] = s
            place[r] += 1
    return out_ptr, lists, t_ptr, t_lists
