"""Products over schedules: the CSR's product, the same bits for any threads; extremes bit-equal to
the CSR's."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.hag.hag import plain
from stockpot.stages.hag.product import schedule as module
from stockpot.stages.hag.product.levels import transposed
from stockpot.stages.hag.product.schedule import extremes, extremes_back, schedule, sums
from tests.stages.hag.hags import csr_arrays, graphs, pair_greedy


@pytest.fixture(autouse=True)
def _small_tasks(monkeypatch):
    monkeypatch.setattr(module, "TASK_READS", 6)


def sections(parts):
    return sp.block_diag(parts, format="csr")


def product(plan, x, left, right, threads):
    out = np.full((plan.rows, x.shape[1]), np.nan, x.dtype)
    sums(plan, x, right, left, out, threads)
    return out


@settings(deadline=None)
@given(
    st.lists(graphs(), min_size=1, max_size=4),
    st.sampled_from([1, 3, 4, 7, 16, 45, 64, 90]),
    st.integers(0, 2**31),
)
def test_sums_are_those_of_the_csr_and_do_not_depend_on_threads(parts, dim, seed):
    a = sections(parts)
    hag = pair_greedy(*csr_arrays(a), a.shape[1], most=20)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(a.shape[1], dim))
    left, right = rng.random(a.shape[0]) + 0.5, rng.random(a.shape[1]) + 0.5
    for dtype, limit in ((np.float64, 1e-12), (np.float32, 1e-5)):
        given_ = [v.astype(dtype) for v in (x, left, right)]
        for found, matrix, l, r in (
            (hag, a, given_[1], given_[2]),
            (transposed(hag), a.T, given_[2], given_[1]),
        ):
            results = [product(schedule(found, t), given_[0], l, r, t) for t in (1, 2, 3)]
            terms = sp.diags(l) @ matrix @ sp.diags(r)
            assert (
                abs(results[0] - terms @ given_[0])
                <= limit * (abs(terms) @ abs(given_[0])) + 1e-300
            ).all()
            assert all(np.array_equal(results[0], other) for other in results[1:])


def test_multiplicities():
    indptr, indices = np.array([0, 3, 3, 5]), np.array([2, 0, 2, 1, 0])
    x = np.arange(12.0).reshape(3, 4)
    ones = np.ones(3)
    np.testing.assert_array_equal(
        product(schedule(plain(indptr, indices)), x, ones, ones, 1),
        [x[0] + 2 * x[2], np.zeros(4), x[0] + x[1]],
    )


def test_a_section_has_its_own_small_buffer_and_one_large_section_goes_by_levels():
    many = sections([np.ones((5, 5))] * 6)
    hag = pair_greedy(*csr_arrays(many), 30, most=30)
    alone = schedule(hag, 2)
    assert not alone.shared
    assert len(alone.tasks) == 6
    assert alone.buffer_rows * 6 == alone.aggs
    one = pair_greedy(*csr_arrays(np.ones((9, 9))), 9, most=9)
    by_levels = schedule(one, 2)
    assert by_levels.shared
    assert len(by_levels.waves) == one.depth + 2
    assert len(schedule(one, 1).tasks) == 1


def reference(a, x, sign):
    """Values and first columns by rows of the CSR, in order."""
    out, arg = np.zeros((a.shape[0], x.shape[1]), x.dtype), np.full((a.shape[0], x.shape[1]), -1)
    for i in range(a.shape[0]):
        columns = np.sort(a.indices[a.indptr[i] : a.indptr[i + 1]])
        if columns.size:
            at = (sign * x[columns]).argmax(
                0
            )  # argmax takes the first, and not a number before all
            arg[i] = columns[at]
            out[i] = x[arg[i], np.arange(x.shape[1])]
    return out, arg


@settings(deadline=None)
@given(
    st.lists(graphs(), min_size=1, max_size=3),
    st.sampled_from([1, -1]),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_extremes_are_bit_equal(parts, sign, seed, holes):
    a = sections(parts)
    hag = pair_greedy(*csr_arrays(a), a.shape[1], most=20)
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (a.shape[1], 5)).astype(np.float32) * np.float32(
        0.1
    )  # many ties, and zeros of both signs
    if holes:
        x[rng.random(x.shape) < 0.2] = np.nan
    expected, columns = reference(a, x, sign)
    for threads in (1, 2):
        out, arg = np.empty_like(expected), np.empty(expected.shape, np.int32)
        extremes(schedule(hag, threads), x, sign, out, arg, threads)
        np.testing.assert_array_equal(out.view(np.int32), expected.view(np.int32))
        np.testing.assert_array_equal(arg, columns)
    grad = rng.normal(size=expected.shape)
    back = np.zeros(x.shape)
    extremes_back(arg, grad, back)
    dense = np.zeros(x.shape)
    np.add.at(dense, (columns[columns >= 0], np.nonzero(columns >= 0)[1]), grad[columns >= 0])
    np.testing.assert_allclose(back, dense, atol=1e-12)
