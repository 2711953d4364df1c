"""Turned, trimmed and joined HAGs stand for the turned, trimmed and joined CSR: exact products of
integers."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.hag.hag import cover, fault, plain
from stockpot.stages.hag.product.levels import head, joined, transposed
from stockpot.stages.hag.sequence import build_trie
from tests.hag_tools import trie_hag
from tests.stages.hag.hags import csr_arrays, graphs, pair_greedy


def same(hag, matrix):
    assert not fault(hag)
    assert (cover(hag) != sp.csr_matrix(matrix)).nnz == 0


@given(graphs(square=False))
def test_transposed(a):
    hag = pair_greedy(*csr_arrays(a), a.shape[1])
    same(hag, a)
    turned = transposed(hag)
    same(turned, a.T)
    same(transposed(turned), a)
    assert turned.reads == hag.reads


@given(graphs(), st.integers(2, 3))
def test_multiplicities_are_turned(a, times):
    indptr, indices = csr_arrays(a)
    again = indptr * times, np.repeat(indices, times)
    for hag in (plain(*again, a.shape[1]), trie_hag(build_trie(*again, a.shape[1]), *again)):
        same(hag, a * times)
        same(transposed(hag), a.T * times)


@given(graphs(), st.data())
def test_head_keeps_the_first_rows_and_what_they_need(a, data):
    rows = data.draw(st.integers(0, a.shape[0]))
    first = a[:rows]
    cols = max(rows, first.indices.max() + 1 if first.nnz else 0)
    hag = head(pair_greedy(*csr_arrays(a), a.shape[1]), rows, cols)
    same(hag, first[:, :cols])
    read = np.unique(np.r_[hag.indices, hag.out_indices])
    assert np.isin(np.arange(cols, hag.num_buffer), read).all()
    assert (np.diff(hag.level_ptr) > 0).all()


@given(st.lists(graphs(most=7), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_joined(parts, random):
    """Records interleaved in any order that keeps their own; the rows of each are the first of its
    columns."""
    owner = [r for r, a in enumerate(parts) for _ in range(a.shape[0])]
    random.shuffle(owner)
    places = [np.flatnonzero(np.array(owner) == r).astype(np.int32) for r in range(len(parts))]
    expected = np.zeros((len(owner), len(owner)), int)
    for place, a in zip(places, parts, strict=True):
        expected[np.ix_(place, place)] = a.toarray()
    hags = [
        pair_greedy(*csr_arrays(a), a.shape[1]) if r % 2 == 0 else plain(*csr_arrays(a))
        for r, a in enumerate(parts)
    ]
    hag = joined(hags, places, len(owner), len(owner))
    same(hag, expected)
    assert hag.depth == max(h.depth for h in hags)
