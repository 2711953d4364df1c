"""The prefix trie against sets of prefixes, and as a legal HAG by the cover product."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.hag.hag import check, cover
from stockpot.stages.hag.sequence import build_trie, degree_rank
from tests.hag_tools import trie_hag

rows_of = st.lists(st.lists(st.integers(0, 7), max_size=7), max_size=10)


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[0, np.cumsum([len(r) for r in rows])].astype(np.int64), np.array(
        [c for r in rows for c in r], np.int32
    )


@given(rows_of, st.permutations(range(8)) | st.none())
def test_one_node_for_each_distinct_prefix(rows, order):
    indptr, indices = csr(rows)
    trie = build_trie(indptr, indices, 8, rank=None if order is None else np.array(order))
    rank = degree_rank(indices, 8) if order is None else np.array(order)
    words = [tuple(sorted(r, key=lambda c: rank[c])) for r in rows]
    prefixes = {w[:k] for w in words for k in range(1, len(w) + 1)}
    assert trie.steps == len(prefixes)

    def spell(node: int) -> tuple[int, ...]:
        return () if node < 0 else (*spell(trie.parent[node]), int(trie.column[node]))

    assert [spell(node) for node in trie.out] == words
    level = np.repeat(np.arange(len(trie.level_ptr) - 1), np.diff(trie.level_ptr))
    assert [len(spell(node)) for node in range(trie.steps)] == (level + 1).tolist()


@given(rows_of)
def test_as_a_hag_it_covers_the_rows(rows):
    indptr, indices = csr(rows)
    hag = trie_hag(build_trie(indptr, indices, 8), indptr, indices)
    check(hag, indptr, indices)
    dense = sp.csr_matrix(
        (np.ones(len(indices), np.int64), indices, indptr), shape=(len(rows), 8)
    ).toarray()
    assert (cover(hag).toarray() == dense).all()


def test_twins_share_the_whole_row():
    indptr, indices = csr([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
    trie = build_trie(indptr, indices)
    assert (trie.steps, trie.plain_steps, trie.adds_ratio) == (3, 9, 3.0)
