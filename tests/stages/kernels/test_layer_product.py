"""A layer's two products as one function: the values and gradients of its parts, in either
order."""

import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.kernels.layer_product import layer_product
from stockpot.stages.kernels.precision import products
from stockpot.stages.loader.assembly import quiet_csr
from stockpot.stages.step import Adj

quiet_csr()


def tensor_of(matrix):
    parts = (torch.from_numpy(a) for a in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(*parts, matrix.shape, check_invariants=False)


def case(seed, rows, more, in_dim, out_dim, dtype=torch.float64, density=0.3):
    torch.manual_seed(seed)
    cols = rows + more
    a = sp.random(rows, cols, density, "csr", random_state=seed)
    a = a.astype("f8" if dtype == torch.float64 else "f4")
    adj = Adj(tensor_of(a), tensor_of(a.T.tocsr()))
    shapes = [(cols, in_dim), (out_dim, in_dim), (out_dim,), (out_dim, in_dim)]
    parts = [torch.randn(s, dtype=dtype).requires_grad_() for s in shapes]
    return adj, torch.from_numpy(a.toarray()), parts


def by_parts(dense, x, weight, bias, own_weight):
    return dense @ x @ weight.t() + bias + x[: dense.shape[0]] @ own_weight.t()


@given(
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 9),
    more=st.integers(0, 9),
    dims=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    first=st.booleans(),
)
def test_values_and_gradients_are_those_of_the_parts(seed, rows, more, dims, first):
    adj, dense, parts = case(seed, rows, more, *dims)
    found, expected = layer_product(adj, *parts, first=first), by_parts(dense, *parts)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, parts, grad),
        torch.autograd.grad(expected, parts, grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("first", [True, False])
def test_numeric_gradients(first):
    adj, _, parts = case(3, 5, 4, 3, 6)
    assert torch.autograd.gradcheck(lambda *p: layer_product(adj, *p, first=first), parts)


@pytest.mark.parametrize("first", [True, False])
def test_bfloat16_is_near_and_its_gradients_are_float32(first):
    adj, dense, parts = case(4, 60, 70, 32, 24, torch.float32, 0.1)
    with products("bf16", torch.device("cpu")):
        found = layer_product(adj, *parts, first=first)
    assert found.dtype == torch.bfloat16
    expected = by_parts(dense, *parts)
    grads = [torch.autograd.grad(out.float().square().sum(), parts) for out in (found, expected)]
    for near, exact in zip(
        [found.detach().float(), *grads[0]], [expected.detach(), *grads[1]], strict=True
    ):
        assert near.dtype == torch.float32
        assert 0 < float((near - exact).norm()) < 0.03 * float(exact.norm())


def test_features_without_gradient_need_no_transpose_where_sums_come_first():
    adj, dense, parts = case(5, 6, 3, 4, 4)
    alone = Adj(adj.csr)
    x = parts[0].detach()
    out = layer_product(alone, x, *parts[1:], first=True)
    weight = torch.autograd.grad(out.sum(), parts[1])[0]
    torch.testing.assert_close(weight, torch.ones_like(out).t() @ (dense @ x))
    for where, first in ((parts[0], True), (x, False)):
        with pytest.raises(ValueError, match="a gradient needs the transpose"):
            layer_product(alone, where, *parts[1:], first=first)
    with torch.no_grad():
        torch.testing.assert_close(
            layer_product(alone, *parts, first=False), by_parts(dense, *parts)
        )


def test_a_weight_that_is_fixed_gets_no_gradient():
    adj, _, (x, weight, bias, own) = case(6, 6, 3, 4, 4)
    out = layer_product(adj, x.detach(), weight.detach(), bias, own, first=False)
    found = torch.autograd.grad(out.sum(), [bias, own])
    torch.testing.assert_close(found[0], torch.full_like(bias, 6.0))
    torch.testing.assert_close(found[1], torch.ones_like(out).t() @ x[:6])
