"""What batches share, against an ordered dictionary and sets."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.sample.reuse import lru_misses, overlap

NODES = 12
BATCHES = st.lists(
    st.lists(st.integers(0, NODES - 1), unique=True, max_size=NODES), min_size=1, max_size=12
)


def arrays(batches):
    return (
        np.concatenate([np.array(batch, np.int32) for batch in batches]),
        np.concatenate([[0], np.cumsum([len(batch) for batch in batches])]).astype(np.int64),
    )


@settings(deadline=None)
@given(BATCHES, st.integers(0, NODES + 2))
def test_misses_are_those_of_a_cache_of_rows_used_last(batches, capacity):
    cache, misses = OrderedDict(), 0
    for row in (row for batch in batches for row in batch):
        misses += row not in cache
        cache[row] = None
        cache.move_to_end(row)
        if len(cache) > capacity:
            cache.popitem(last=False)
    n_id, n_ptr = arrays(batches)
    assert lru_misses(n_id, n_ptr, NODES, capacity) == misses / max(1, len(n_id))


@settings(deadline=None)
@given(BATCHES)
def test_overlap_is_the_mean_share_that_was_in_the_batch_before(batches):
    found = overlap(*arrays(batches), NODES)
    shares = [len(set(a) & set(b)) / len(b) if b else 0.0 for a, b in pairwise(batches)]
    assert found is None if not shares else abs(found - sum(shares) / len(shares)) < 1e-12
