"""Products and extremes of tensors by a HAG: exact gradients, all float types, both code paths;
weights that factor."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.factors import csr_of, factors
from stockpot.stages.hag.hag import plain
from stockpot.stages.hag.product.levels import transposed
from stockpot.stages.hag.product.matrix import HagMatrix, extreme, product
from tests.stages.hag.hags import csr_arrays, graphs, pair_greedy

BY_LEVELS = {"schedule": None, "levels": lambda t: t}  # the second is what runs on a GPU
paths = pytest.mark.parametrize("path", list(BY_LEVELS))


def pair(a, path, left=None, right=None, most=20):
    hag = pair_greedy(*csr_arrays(a), a.shape[1], most=most)
    moved = BY_LEVELS[path]
    return HagMatrix(hag, left, right, moved=moved), HagMatrix(
        transposed(hag), right, left, moved=moved
    )


def example(seed=0, rows=30, cols=30):
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(
        (rng.random((3, cols)) < 0.5)[rng.integers(0, 3, rows)] ^ (rng.random((rows, cols)) < 0.05),
        dtype=int,
    )


@paths
@settings(deadline=None, max_examples=30)
@given(a=graphs(square=False), seed=st.integers(0, 2**31))
def test_products_within_rounding_of_the_sum_of_absolute_terms(path, a, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(n, generator=generator) + 0.5 for n in a.shape)
    x = torch.randn((a.shape[1], 5), generator=generator)
    found = pair(a, path, left, right)[0].product(x)
    terms = torch.from_numpy(a.toarray()).double() * left[:, None].double() * right.double()
    assert ((found.double() - terms @ x.double()).abs() <= 1e-5 * (terms @ x.double().abs())).all()


@paths
def test_a_diagonal_takes_a_rows_own_term_away(path):
    a = sp.csr_matrix(example().toarray() | np.eye(30, dtype=int))
    less = torch.full((30,), -1.0)
    x = torch.randn(30, 4)
    bare = torch.from_numpy((a - sp.identity(30)).toarray()).float()
    hag = pair_greedy(*csr_arrays(a), 30, most=20)
    torch.testing.assert_close(
        HagMatrix(hag, diagonal=less, moved=BY_LEVELS[path]).product(x), bare @ x
    )
    turned = HagMatrix(transposed(hag), diagonal=less, moved=BY_LEVELS[path])
    torch.testing.assert_close(turned.product(x), bare.T @ x)


@paths
def test_gradcheck(path):
    a = example(rows=12, cols=9)
    left, right = (torch.rand(n, dtype=torch.float64) + 0.5 for n in a.shape)
    matrix, turned = pair(a, path, left, right)
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: product(matrix, turned, x), x)
    for sign in (1, -1):
        assert torch.autograd.gradcheck(lambda x, s=sign: extreme(matrix, x, s), x)


@paths
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_floats(path, dtype):
    a = example()
    matrix, turned = pair(a, path)
    x = torch.randn(30, 20).to(dtype).requires_grad_()
    out = product(matrix, turned, x)
    assert out.dtype == dtype
    exact = torch.from_numpy(a.toarray()).double()
    limit = torch.finfo(dtype).eps  # one rounding: partial sums are wide
    assert ((out.double() - exact @ x.double()).abs() <= limit * (exact @ x.double().abs())).all()
    out.sum().backward()
    assert x.grad.dtype == dtype
    torch.testing.assert_close(
        x.grad.double(), exact.T @ torch.ones(30, 20).double(), rtol=limit, atol=0
    )


@paths
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_are_bit_equal_to_torch(path, sign, dtype):
    a = example()
    x = torch.randint(-3, 4, (30, 7)).to(dtype).requires_grad_()
    out = extreme(pair(a, path)[0], x, sign)
    row = torch.from_numpy(np.repeat(np.arange(30), np.diff(a.indptr)))[:, None].expand(-1, 7)
    expected = torch.zeros(30, 7, dtype=dtype).scatter_reduce(
        0, row, x.detach()[a.indices], "amax" if sign > 0 else "amin", include_self=False
    )
    assert torch.equal(out, expected)
    out.sum().backward()
    assert x.grad.sum() == (a.getnnz(1) > 0).sum() * 7


def test_both_paths_name_the_same_columns():
    a = example(seed=1)
    x = torch.randint(-2, 3, (30, 4)).float()
    one, other = (pair(a, path)[0].extreme(x, 1) for path in BY_LEVELS)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1].long(), other[1])


@paths
def test_rows_without_entries_and_levels_without_rows(path):
    matrix = HagMatrix(plain(np.zeros(4, np.int64), np.zeros(0, np.int64)), moved=BY_LEVELS[path])
    assert torch.equal(matrix.product(torch.ones(3, 2)), torch.zeros(3, 2))
    assert torch.equal(matrix.extreme(torch.ones(3, 2), 1)[0], torch.zeros(3, 2))


def test_csr_of_edges_keeps_repeats_and_refuses_others():
    indptr, indices, order = csr_of(np.array([[2, 0, 2, 1], [0, 0, 0, 2]]), 3)
    assert (indptr.tolist(), indices.tolist(), order.tolist()) == (
        [0, 3, 3, 4],
        [0, 2, 2, 1],
        [1, 0, 2, 3],
    )
    with pytest.raises(BadInput, match=r"edge 1 is 5 -> 0: expected nodes 0..2"):
        csr_of(np.array([[2, 5], [0, 0]]), 3)
    with pytest.raises(BadInput, match=r"expected shape \(2, E\)"):
        csr_of(np.zeros((3, 2), int), 3)


@settings(deadline=None)
@given(a=graphs(), seed=st.integers(0, 2**31))
def test_weights_that_factor_are_found(a, seed):
    rng = np.random.default_rng(seed)
    u, v = (
        rng.uniform(0.1, 2, a.shape[0]) * rng.choice([-1, 1], a.shape[0]),
        rng.uniform(0.1, 2, a.shape[1]),
    )
    indptr, indices = csr_arrays(a)
    row = np.repeat(np.arange(a.shape[0]), np.diff(indptr))
    values = (u[row] * v[indices]).astype(np.float32).astype(float)
    left, right = factors(indptr, indices, values)
    np.testing.assert_allclose(left[row] * right[indices], values, rtol=2e-5)


def test_weights_that_do_not_factor_name_the_edge():
    indptr, indices, _ = csr_of(np.array([[0, 1, 0, 1], [0, 0, 1, 1]]), 2)
    with pytest.raises(
        BadInput, match=r"edge 0 -> 1: its weight 3 is not left\[1\] \* right\[0\] = 4.5"
    ):
        factors(indptr, indices, np.array([1.0, 2, 3, 9]))
    with pytest.raises(
        BadInput, match="edge 0 -> 1: expected a finite weight other than 0, found nan"
    ):
        factors(indptr, indices, np.array([1.0, 2, np.nan, 9]))
