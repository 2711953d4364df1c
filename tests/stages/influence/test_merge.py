import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.influence.merge import clusters, forest, join, line, roots
from stockpot.stages.influence.mix import balanced, mix_clusters
from stockpot.stages.influence.pairs import descending, overlaps, shared
from stockpot.stages.influence.permutation import jitter, permutation, scramble


@st.composite
def rows(draw):
    """Sparse rows over n positions, without the diagonal, as the push leaves them (not sorted by
    column)."""
    n = draw(st.integers(1, 12))
    cols, values, ptr = [], [], [0]
    for i in range(n):
        row = (
            draw(
                st.lists(
                    st.integers(0, n - 1).filter(lambda c, i=i: c != i), unique=True, max_size=n - 1
                )
            )
            if n > 1
            else []
        )
        cols += row
        values += draw(
            st.lists(st.sampled_from([0.125, 0.25, 0.5]), min_size=len(row), max_size=len(row))
        )
        ptr.append(len(cols))
    return np.array(ptr, np.int64), np.array(cols, np.int32), np.array(values, np.float32)


def kruskal(n, edges, cap):
    """Greedy merge with sets as Python sets."""
    owner = {i: frozenset([i]) for i in range(n)}
    for a, b in edges:
        if owner[a] is not owner[b] and len(owner[a]) + len(owner[b]) <= cap:
            both = owner[a] | owner[b]
            owner.update(dict.fromkeys(both, both))
    return set(owner.values())


@settings(max_examples=80, deadline=None)
@given(rows())
def test_overlaps_are_the_lower_triangle_of_m_plus_its_transpose(m):
    ptr, cols, values = m
    n = len(ptr) - 1
    dense, held = np.zeros((n, n), np.float32), np.zeros((n, n), bool)
    for i in range(n):
        dense[i, cols[ptr[i] : ptr[i + 1]]] = values[ptr[i] : ptr[i + 1]]
        held[i, cols[ptr[i] : ptr[i + 1]]] = True
    expected = np.argwhere(np.tril(held | held.T, -1))
    high, low, weight = overlaps(ptr, cols, values)
    np.testing.assert_array_equal(np.stack([high, low], 1).reshape(-1, 2), expected)
    np.testing.assert_array_equal(weight, (dense + dense.T)[high, low])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 4, width=32), max_size=60))
def test_descending_is_a_stable_sort(weights):
    weights = np.array(weights, np.float32) + np.float32(0)  # no negative zero
    np.testing.assert_array_equal(descending(weights), np.argsort(-weights, kind="stable"))


@settings(max_examples=80, deadline=None)
@given(rows(), st.integers(1, 13), st.integers(0, 9))
def test_clusters_hold_every_output_once_and_contain_the_capped_merge(m, cap, seed):
    n = len(m[0]) - 1
    pairs = overlaps(*m)
    rng = np.random.default_rng(seed)
    top = rng.integers(-1, 8, (n, 3)).astype(np.int32)
    top = -np.sort(-np.where(top == np.roll(top, 1, 1), -1, top), axis=1)
    value = np.where(top >= 0, rng.random((n, 3)), 0).astype(np.float32)
    links = shared(top, value, 8)
    members, ptr = clusters(pairs, links, np.arange(n, dtype=np.int32), cap)
    assert sorted(members.tolist()) == list(range(n))
    assert (np.diff(ptr) >= 1).all()
    assert np.diff(ptr).max() <= cap
    found = [set(members[a:b].tolist()) for a, b in itertools.pairwise(ptr)]
    for merged in kruskal(
        n, [(pairs[0][e], pairs[1][e]) for e in np.argsort(-pairs[2], kind="stable")], cap
    ):
        assert any(merged <= one for one in found)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 999))
def test_the_larger_set_comes_first_and_of_equals_that_of_the_smaller_root(n, cap, seed):
    """Sets as lists whose first member is the root; equal sizes are met all the time."""
    pairs = np.random.default_rng(seed).integers(0, n, (2 * n, 2)).astype(np.int32)
    order = np.random.default_rng(seed + 1).permutation(2 * n)
    lists = {i: [i] for i in range(n)}
    for a, b in pairs[order]:
        one, other = (next(found for found in lists.values() if i in found) for i in (a, b))
        if one is other or len(one) + len(other) > cap:
            continue
        first, second = sorted((one, other), key=lambda found: (-len(found), found[0]))
        del lists[second[0]]
        first += second
    parent, size, following, tail = forest(n)
    join(parent, size, following, tail, pairs[:, 0].copy(), pairs[:, 1].copy(), order, cap)
    assert set(roots(parent).tolist()) == set(lists)
    members = line(parent, following, np.arange(n, dtype=np.int32)).tolist()
    assert members == [i for found in sorted(lists.values(), key=min) for i in found]
    assert [int(size[root]) for root in sorted(lists)] == [
        len(lists[root]) for root in sorted(lists)
    ]


def test_shared_links_consecutive_holders_of_a_node():
    top = np.array([[0, 5], [5, 1], [5, -1], [1, 0]], np.int32)
    value = np.array([[0.5, 0.25], [0.75, 0.125], [0.0625, 0], [0.5, 0.375]], np.float32)
    high, low, weight = shared(top, value, 6)
    assert list(zip(high.tolist(), low.tolist(), weight.tolist(), strict=True)) == [
        (1, 0, 0.25),
        (2, 1, 0.0625),
        (3, 1, 0.125),
        (3, 0, 0.375),
    ]


def test_leftovers_are_packed_with_their_neighbours():
    # Pairs (0 1), (2 3), (4 5) bind strongly; 0-4 hang together weakly; cap 3 leaves three pairs
    # that cannot merge, and singles 6, 7, 8 with no pair at all, which share a node with 8, 6 and
    # each other.
    pairs = (
        np.array([1, 3, 5, 4], np.int32),
        np.array([0, 2, 4, 0], np.int32),
        np.array([0.9, 0.8, 0.7, 0.1], np.float32),
    )
    links = np.array([7, 8], np.int32), np.array([6, 6], np.int32), np.array([0.3, 0.2], np.float32)
    members, ptr = clusters(pairs, links, np.arange(9, dtype=np.int32), 3)
    found = {frozenset(members[a:b].tolist()) for a, b in itertools.pairwise(ptr)}
    assert frozenset({6, 7, 8}) in found
    assert {frozenset({0, 1}), frozenset({2, 3}), frozenset({4, 5})} <= found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 50), st.integers(0, 5))
def test_mixing_keeps_the_cap_and_balances(sizes, outputs, seed):
    sizes = np.array(sizes, np.int64)
    records, cap = balanced(int(sizes.sum()), outputs)
    record = mix_clusters(sizes, records, cap, seed)
    loads = np.bincount(record, minlength=records)
    assert len(record) == sizes.sum()
    assert cap <= outputs
    assert loads.max() <= cap
    assert loads.min() >= 1
    if sizes.max() * 2 <= cap:  # small clusters: loads differ by at most the largest of them
        assert loads.max() - loads.min() <= sizes.max()


def test_mixing_puts_whole_clusters_together_and_depends_on_the_seed():
    sizes = np.full(64, 10, np.int64)
    record = mix_clusters(sizes, 8, 80, 0).reshape(64, 10)
    assert (record == record[:, :1]).all()
    assert (np.bincount(record[:, 0]) == 8).all()
    assert (record[:, 0] != mix_clusters(sizes, 8, 80, 1).reshape(64, 10)[:, 0]).any()


def test_mixing_deals_larger_clusters_first_so_that_the_last_ones_fit_whole():
    sizes = np.array([2, 3, 3, 4], np.int64)
    pieces = np.split(mix_clusters(sizes, 2, 6, 0), np.cumsum(sizes)[:-1])
    assert [len(set(piece.tolist())) for piece in pieces] == [1, 1, 1, 1]
    assert pieces[0][0] == pieces[3][0] != pieces[1][0] == pieces[2][0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 50),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_mixing_holds_more_clusters_only_where_no_other_record_has_room(sizes, cap, most, seed):
    sizes = np.array(sizes, np.int64)
    records = max(-(-int(sizes.sum()) // cap), -(-len(sizes) // most))
    record = mix_clusters(sizes, records, cap, seed, most)
    loads = np.bincount(record, minlength=records)
    assert loads.max() <= cap
    assert loads.min() >= 1
    pieces = [set(part.tolist()) for part in np.split(record, np.cumsum(sizes)[:-1])]
    held = np.bincount([r for piece in pieces for r in piece], minlength=records)
    if held.max() > most:
        assert (loads[held < most] == cap).all()


def test_other_seeds_deal_clusters_of_all_sizes_anew():
    sizes = np.arange(30, 94)
    dealt = [mix_clusters(sizes, 8, 600, seed)[np.cumsum(sizes) - 1] for seed in range(4)]
    together = [(d[:, None] == d)[np.triu_indices(64, 1)] for d in dealt]
    for i in range(4):
        for j in range(i):
            assert (together[i] & together[j]).sum() < 0.3 * together[i].sum()


def test_jitter_stays_in_its_range_and_is_off_for_the_first_round():
    assert (jitter(9, 0) == 1).all()
    drawn = jitter(10_000, 1)
    assert 0.5 < drawn.min() < 0.51
    assert 0.99 < drawn.max() <= 1.0
    assert not np.isin(drawn, jitter(10_000, 2)).any()


def test_scramble_is_one_to_one_and_seeds_share_nothing():
    values = np.arange(5000)
    assert len(np.unique(scramble(values, 3))) == 5000
    assert not np.isin(scramble(values, 3), scramble(values, 4)).any()
    assert sorted(permutation(100, 9)) == list(range(100))
    positions = permutation(1000, 1)[:500]
    assert 400 < positions.mean() < 600
