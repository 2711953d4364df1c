import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.train import attention
from stockpot.stages.train.attention import (
    attend,
    backward_cpu,
    backward_torch,
    forward_cpu,
    forward_torch,
)
from tests.stages.steps import adj_of


def made(rows, cols, edges, heads, width, seed, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    a = sp.csr_matrix(
        (np.ones(edges), (rng.integers(0, rows, edges), rng.integers(0, cols, edges))), (rows, cols)
    )
    a.data[:] = 1
    draw = torch.Generator().manual_seed(seed)
    values = [
        torch.randn(*shape, generator=draw, dtype=dtype)
        for shape in ((cols, heads * width), (cols, heads), (rows, heads))
    ]
    return a, adj_of(a, dtype), values


def by_hand(a, z, source, target):
    """Dense softmax with -inf where there is no edge; rows without one give zero."""
    mask = torch.from_numpy(a.toarray() > 0)[:, :, None]
    e = torch.nn.functional.leaky_relu(source[None] + target[:, None], 0.2)
    weights = torch.nan_to_num(torch.softmax(e.masked_fill(~mask, -torch.inf), 1))
    return torch.einsum("ijh,jhc->ihc", weights, z.view(z.shape[0], source.shape[1], -1)).reshape(
        a.shape[0], -1
    )


sizes = {
    "rows": st.integers(1, 12),
    "cols": st.integers(1, 20),
    "edges": st.integers(0, 60),
    "heads": st.integers(1, 4),
    "width": st.integers(1, 5),
    "seed": st.integers(0, 99),
}


@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_kernels_equal_the_dense_formula_and_torchs_operators(
    rows, cols, edges, heads, width, seed
):
    a, adj, values = made(rows, cols, edges, heads, width, seed)
    plain = [v.clone().requires_grad_() for v in values]
    expected = by_hand(a, *plain)
    grad = torch.randn(
        expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    wanted = torch.autograd.grad(expected, plain, grad)
    for forward, backward in ((forward_cpu, backward_cpu), (forward_torch, backward_torch)):
        out, weights = forward(adj.csr, *values)
        torch.testing.assert_close(out, expected.detach())
        for mine, right in zip(backward(adj, *values, weights, grad), wanted, strict=True):
            torch.testing.assert_close(mine, right)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_function(seed):
    _, adj, values = made(6, 9, 25, 2, 3, seed)
    assert torch.autograd.gradcheck(
        lambda *v: attend(adj, *v), [v.requires_grad_() for v in values]
    )


def test_edges_in_spans_give_the_same_gradient(monkeypatch):
    _, adj, values = made(30, 40, 200, 2, 8, 0)
    _, weights = forward_torch(adj.csr, *values)
    grad = torch.randn(30, 16, dtype=torch.float64)
    whole = backward_torch(adj, *values, weights, grad)
    monkeypatch.setattr(attention, "_EDGE_FLOATS", 7 * 16)
    for one, other in zip(whole, backward_torch(adj, *values, weights, grad), strict=True):
        torch.testing.assert_close(one, other)


def test_any_number_of_threads_gives_the_same_bits():
    _, adj, values = made(900, 1000, 30_000, 2, 4, 0, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            values = [v.detach().requires_grad_() for v in values]
            out = attend(adj, *values)
            found.append([out, *torch.autograd.grad(out.square().sum(), values)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_large_logits_do_not_overflow():
    _, adj, (z, source, target) = made(5, 9, 20, 2, 3, 1, torch.float32)
    out = attend(adj, z, source * 1e4, target * 1e4)
    assert torch.isfinite(out).all()
