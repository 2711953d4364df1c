"""Planned reads against an exhaustive search over all ways to evict, and the plan against a cache
that executes it."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.loadplan.belady import Cache, note_next_uses
from stockpot.stages.sample.reuse import lru_misses
from tests.belady_tools import planned_reads
from tests.stages.order.test_overlap import arrays

NODES = 6
BATCHES = st.lists(
    st.lists(st.integers(0, NODES - 1), unique=True, min_size=0, max_size=3).map(tuple),
    min_size=1,
    max_size=6,
)


def fewest(batches, rows):
    """Reads of the best of all policies that hold every batch whole."""

    @cache
    def best(at, held):
        if at == len(batches):
            return 0
        batch = frozenset(batches[at])
        others = sorted(held - batch)
        room = min(rows - len(batch), len(others))
        return len(batch - held) + min(
            best(at + 1, batch | set(kept)) for kept in combinations(others, room)
        )

    return best(0, frozenset())


@settings(deadline=None, max_examples=300)
@given(BATCHES, st.integers(0, 3))
def test_no_policy_reads_fewer_rows(batches, more):
    rows = max(1, *map(len, batches), 1) + more
    n_id, n_ptr = arrays(batches)
    order = np.arange(len(batches))
    assert planned_reads(n_id, n_ptr, order, NODES, rows).sum() == fewest(batches, rows)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(0, 60))
def test_a_plan_executed_holds_every_row_where_it_says(seed, count, more):
    rng = np.random.default_rng(seed)
    nodes = 80
    batches = [
        rng.choice(nodes, rng.integers(0, 25), replace=False).astype(np.int32) for _ in range(count)
    ]
    rows = max(1, *map(len, batches), 1) + more
    last, uses = np.full(nodes, count, np.int32), [np.empty(len(b), np.int32) for b in batches]
    for k in reversed(range(count)):
        note_next_uses(batches[k], k, count, last, uses[k])
        for v, use in zip(batches[k], uses[k], strict=True):
            assert use == next((j for j in range(k + 1, count) if v in batches[j]), count)
    plan, buffer = Cache(rows, nodes, count), np.full(rows, -1)
    total = 0
    for k, batch in enumerate(batches):
        slots = np.full(len(batch), -1, np.int32)
        read, into = plan.step(batch, k, uses[k], slots)
        assert np.array_equal(read, np.sort(read))
        assert set(read) <= set(batch)
        assert len(set(into.tolist())) == len(into)
        buffer[into] = read
        assert np.array_equal(buffer[slots], batch)
        total += len(read)
    n_id, n_ptr = np.concatenate(batches), np.cumsum([0, *map(len, batches)])
    assert total == planned_reads(n_id, n_ptr, np.arange(count), nodes, rows).sum()
    if rows >= 2 * max(
        map(len, batches)
    ):  # an LRU cache need not hold a batch whole, and then has more room
        assert total <= round(
            lru_misses(n_id, n_ptr, nodes, rows - max(map(len, batches))) * max(1, len(n_id))
        )


def test_a_cache_as_large_as_the_graph_reads_each_row_once():
    rng = np.random.default_rng(0)
    n_id, n_ptr = arrays([rng.choice(50, 20, replace=False).tolist() for _ in range(9)])
    assert planned_reads(n_id, n_ptr, rng.permutation(9), 50, 50).sum() == len(np.unique(n_id))


def test_a_cache_below_a_batch_is_refused():
    with pytest.raises(ValueError, match="a cache of 2 rows cannot hold a batch of 3"):
        planned_reads(*arrays([[0, 1], [1, 2, 3]]), np.arange(2), 4, 2)


def test_a_cache_below_a_batch_is_refused_also_when_it_holds_rows_of_later_ones():
    with pytest.raises(ValueError, match="a cache of 3 rows cannot hold a batch of 4"):
        planned_reads(*arrays([[0, 1], [2, 3, 4, 5], [0, 1]]), np.arange(3), 6, 3)
