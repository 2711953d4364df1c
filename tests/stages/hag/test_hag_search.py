"""The search: every HAG covers its CSR exactly, every merge is the best there is, and nothing
depends on threads."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import check, cover
from stockpot.stages.hag.search import prepared as prepared_module
from stockpot.stages.hag.search import search as search_module
from stockpot.stages.hag.search.prepared import Settings
from stockpot.stages.hag.search.search import search
from stockpot.stages.hag.search.shape import Shape, build, outline
from tests.hag_tools import curve

BOTH = (2, 3)


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[0, np.cumsum([len(r) for r in rows])].astype(np.int64), np.array(
        [c for r in rows for c in r], np.int32
    )


def graph(
    n: int, density: float, seed: int, *, loops: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric random graph with a few cliques in it, so that there is something to share."""
    rng = np.random.default_rng(seed)
    a = rng.random((n, n)) < density
    for _ in range(3):
        members = rng.choice(n, min(n, 6), replace=False)
        a[np.ix_(members, members)] = True
    a |= a.T
    np.fill_diagonal(a, loops)
    return csr([np.flatnonzero(row).tolist() for row in a])


@st.composite
def rows_of(draw) -> tuple[list[list[int]], int]:
    """Rows over few columns, several of them equal, with repeated columns now and then."""
    columns = draw(st.integers(1, 12))
    kinds = draw(
        st.lists(
            st.lists(st.integers(0, columns - 1), max_size=9, unique=draw(st.booleans())),
            max_size=7,
        )
    )
    picks = draw(st.lists(st.integers(0, max(0, len(kinds) - 1)), max_size=14)) if kinds else []
    return kinds + [kinds[i] for i in picks], columns


@settings(max_examples=150)
@given(
    rows_of(),
    st.integers(2, 4),
    st.integers(-1, 6),
    st.integers(-1, 4),
    st.integers(-1, 4),
    st.sampled_from([3, 2048]),
)
def test_every_hag_covers_its_csr(found, min_count, capacity, keep, depth, row_limit):
    rows, columns = found
    indptr, indices = csr(rows)
    merges = search(indptr, indices, columns, settings=Settings(min_count, None, row_limit))
    plan = outline(merges, Shape(capacity, keep, depth))
    hag = build(merges, plan)
    check(hag, indptr, indices)
    dense = sp.csr_matrix(
        (np.ones(len(indices), np.int64), indices, indptr), shape=(len(rows), columns)
    ).toarray()
    assert (cover(hag).toarray() == dense).all()
    assert (plan.reads, plan.nodes, plan.levels) == (hag.reads, hag.num_aggregations, hag.depth)
    assert depth < 0 or hag.depth <= depth
    assert capacity < 0 or hag.num_aggregations <= capacity


@settings(max_examples=40)
@given(
    st.integers(6, 24),
    st.floats(0.05, 0.6),
    st.integers(0, 1000),
    st.sampled_from(BOTH),
    st.booleans(),
)
def test_every_merge_is_the_most_frequent_pair(n, density, seed, min_count, loops):
    """Brute force beside the search: ties may be taken in any order, so each step is checked, not
    the sequence."""
    indptr, indices = graph(n, density, seed, loops=loops)
    merges = search(indptr, indices, settings=Settings(min_count))
    lists = sorted({tuple(indices[indptr[u] : indptr[u + 1]].tolist()) for u in range(n)})
    now = [set(row) for row in lists]

    def largest() -> tuple[int, Counter]:
        pairs = Counter(pair for row in now for pair in combinations(sorted(row), 2))
        return max(pairs.values(), default=0), pairs

    for i, (pair, count) in enumerate(
        zip(merges.pairs.tolist(), merges.counts.tolist(), strict=True)
    ):
        best, pairs = largest()
        assert count == best == pairs[min(pair), max(pair)]
        for row in now:
            if row.issuperset(pair):
                row.difference_update(pair)
                row.add(n + i)
    assert largest()[0] < min_count
    assert (merges.applied == merges.counts).all()


@given(st.integers(6, 30), st.floats(0.05, 0.6), st.integers(0, 1000), st.sampled_from(BOTH))
def test_the_curve_is_what_each_capacity_gives(n, density, seed, min_count):
    indptr, indices = graph(n, density, seed, loops=seed % 2 == 0)
    merges = search(indptr, indices, settings=Settings(min_count))
    # A row that stands several times and is one symbol after all merges is no twin to `outline`:
    # under a capacity that undoes these merges nobody shares it, and the curve, which does, is off.
    assume(not ((merges.twins() > 1) & (np.diff(merges.ptr) == 1) & (merges.entries() > 1)).any())
    adds, reads = curve(merges)
    for capacity in range(len(adds)):
        hag = build(merges, outline(merges, Shape(capacity, -1)))
        assert hag.adds == adds[capacity]
        assert hag.reads <= reads[capacity]  # nodes of one consumer dissolve
    assert build(merges, outline(merges, Shape(0))).num_aggregations == 0


def test_a_filter_never_costs_reads_it_says_it_saves():
    indptr, indices = graph(60, 0.3, 1)
    merges = search(indptr, indices)
    reads = [outline(merges, Shape(keep=keep)).reads for keep in (-1, 0, 1, 2, 4, 8, 16)]
    nodes = [outline(merges, Shape(keep=keep)).nodes for keep in (-1, 0, 1, 2, 4, 8, 16)]
    assert reads[1] <= merges.plain_reads
    assert nodes == sorted(nodes, reverse=True)


def test_a_clique_with_loops_is_one_sum():
    n = 9
    indptr, indices = np.arange(n + 1) * n, np.tile(np.arange(n), n)
    hag = build(m := search(indptr, indices), outline(m, Shape()))
    assert (hag.num_aggregations, hag.reads, hag.adds, hag.depth) == (1, 2 * n, n - 1, 1)


def test_multi_edges_are_shared_where_they_are_equal():
    indptr, indices = csr(
        [[0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 1, 3], [1, 0, 1, 0, 1, 4], [0, 1, 1, 5]]
    )
    hag = build(m := search(indptr, indices, 6), outline(m, Shape()))
    assert (hag.num_aggregations, hag.weight.tolist(), hag.plain_reads) == (1, [2, 3], 12)
    dense = sp.csr_matrix((np.ones(22, np.int64), indices, indptr), shape=(4, 6)).toarray()
    assert (cover(hag).toarray() == dense).all()


def test_rows_above_the_limit_are_merged_and_not_counted():
    rows = [[0, 1, 2], [0, 1, 3], [0, 1], [2, 3], [0, 1, 2, 3]]
    merges = search(*csr(rows), 4, settings=Settings(row_limit=3))
    assert (merges.counts.tolist(), merges.applied.tolist()) == ([3], [4])


@pytest.mark.parametrize("loops", [False, True])
def test_the_same_bytes_for_any_number_of_threads_and_groups(loops, monkeypatch):
    parts = [graph(30, 0.3, seed, loops=loops) for seed in range(6)]
    a = sp.block_diag([sp.csr_matrix((np.ones(len(i)), i, p)) for p, i in parts], format="csr")
    a.sort_indices()

    def found(threads: int, group: int) -> tuple[np.ndarray, ...]:
        for module in (search_module, prepared_module):
            monkeypatch.setattr(module, "GROUP", group)
        merges = search(a.indptr, a.indices, threads=threads)
        hag = build(merges, outline(merges, Shape(keep=4, depth=3)))
        return (
            merges.counts,
            hag.indptr,
            hag.indices,
            hag.out_indptr,
            hag.out_indices,
            hag.level_ptr,
        )

    one = found(1, 1 << 17)
    for threads, group in ((2, 1 << 17), (1, 1), (3, 1)):
        again = found(threads, group)
        assert (
            again[0] == one[0]
        ).all()  # the gain sequence; which of equal pairs comes first depends on the group
        if group > 1:
            assert all((x == y).all() for x, y in zip(one, again, strict=True))
    assert all((x == y).all() for x, y in zip(found(1, 1), found(4, 1), strict=True))


def test_the_order_of_columns_in_a_row_does_not_matter():
    indptr, indices = graph(30, 0.4, 3)
    shuffled = np.concatenate(
        [
            np.random.default_rng(u).permutation(indices[indptr[u] : indptr[u + 1]])
            for u in range(30)
        ]
    )
    one, other = search(indptr, indices), search(indptr, shuffled)
    assert (one.pairs == other.pairs).all()
    assert one.crc != other.crc


def test_a_capacity_below_zero_is_refused():
    with pytest.raises(BadInput, match=r"hag.capacity is -0.5"):
        Settings(capacity=-0.5)
    with pytest.raises(BadInput, match="min_count is 1"):
        Settings(min_count=1)


@pytest.mark.parametrize("rows", [[], [[]], [[0]], [[0], [0], [0]]])
def test_graphs_with_nothing_to_share(rows):
    indptr, indices = csr(rows)
    merges = search(indptr, indices, 1)
    hag = build(merges, outline(merges, Shape()))
    check(hag, indptr, indices)
    assert (hag.num_aggregations, hag.reads) == (0, len(indices))
