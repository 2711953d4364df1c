"""LayerNorm, ReLU and dropout in one kernel: torch's values and gradients, the same bits for any
number of threads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.kernels.norm_kernel import BLOCK
from stockpot.stages.kernels.sparse_product import (
    _NormReluDropout,
    dropout_mask,
    norm_relu_dropout,
)

EPS = 1e-5


def operands(rows, dim, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    shapes = [(rows, dim), (dim,), (dim,), (dim,)]  # x, weight, bias, shift
    return [torch.randn(s, dtype=dtype).requires_grad_() for s in shapes]


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def fused(x, weight, bias, shift, p, seed):
    return norm_relu_dropout(x, weight, bias, EPS, p, drawn(seed), shift)


def by_parts(x, weight, bias, shift, p, seed):
    threshold = round(256 * p)
    mask = dropout_mask(tuple(x.shape), threshold, drawn(seed), "cpu")
    normal = torch.nn.functional.layer_norm(x + shift, [x.shape[1]], weight, bias, EPS)
    return normal.relu() * mask * (256 / (256 - threshold))


@given(
    rows=st.integers(1, 2 * BLOCK + 3),
    dim=st.integers(1, 33),
    p=st.sampled_from([0.01, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 2**31 - 1),
)
def test_values_and_gradients_are_those_of_the_parts(rows, dim, p, seed):
    parts = operands(rows, dim, seed)
    found, expected = (way(*parts, p, seed) for way in (fused, by_parts))
    torch.testing.assert_close(found, expected)
    grad = torch.randn(rows, dim, dtype=torch.float64)
    both = (torch.autograd.grad(out, parts, grad) for out in (found, expected))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_numeric_gradients():
    parts = operands(6, 5, seed=3)
    assert torch.autograd.gradcheck(lambda *p: fused(*p, 0.3, 11), parts)


def test_float32_is_as_near_as_the_path_by_torchs_operators():
    exact = operands(300, 256, seed=1)
    narrow = [p.detach().float().requires_grad_() for p in exact]
    grad = torch.randn(300, 256)
    x, weight, bias, shift = narrow
    ways = {
        "fused": fused(*narrow, 0.2, 5),
        "torch": _NormReluDropout.apply(x + shift, weight, bias, EPS, 0.2, drawn(5)),
    }
    truth = by_parts(*exact, 0.2, 5)
    true_grads = torch.autograd.grad(truth, exact, grad.double())
    far = {}
    for name, out in ways.items():
        grads = torch.autograd.grad(out, narrow, grad)
        pairs = zip([out.detach(), *grads], [truth.detach(), *true_grads], strict=True)
        far[name] = [float((a.double() - b).norm() / b.norm()) for a, b in pairs]
    for ours, theirs in zip(far["fused"], far["torch"], strict=True):
        assert ours < max(3 * theirs, 1e-6)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads):
    parts = operands(1500, 200, seed=2, dtype=torch.float32)
    grad = torch.randn(1500, 200)
    found = []
    before = torch.get_num_threads()
    for number in (1, threads):
        torch.set_num_threads(number)
        try:
            out = fused(*parts, 0.5, 9)
            found.append([out, *torch.autograd.grad(out, parts, grad)])
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_is_no_number_is_seen():
    x, weight, bias, shift = operands(4, 16, dtype=torch.float32)
    x.data[1, 3] = float("nan")
    out = fused(x, weight, bias, shift, 0.1, 0)
    assert torch.isnan(out[1]).any()
    assert not torch.isnan(out[[0, 2, 3]]).any()


def test_a_matrix_in_another_layout_is_read_as_it_stands():
    _, weight, bias, shift = operands(40, 24)
    x = torch.randn(24, 40, dtype=torch.float64).t()
    torch.testing.assert_close(
        fused(x, weight, bias, shift, 0.5, 1), fused(x.contiguous(), weight, bias, shift, 0.5, 1)
    )


def test_every_byte_of_a_mask_is_as_likely():
    """Shares of masks at every sixteenth threshold, by column and by row: no place is favoured."""
    for threshold in range(16, 256, 48):
        mask = dropout_mask((4000, 13), threshold, drawn(threshold), "cpu").double()
        kept = 1 - threshold / 256
        spread = np.sqrt(kept * (1 - kept))
        assert float((mask.mean(0) - kept).abs().max()) < 5 * spread / np.sqrt(4000)
        assert float((mask.mean(1) - kept).abs().max()) < 7 * spread / np.sqrt(13)
        together = float((mask[:, 0] * mask[:, 1]).mean())
        assert abs(together - kept**2) < 5 / np.sqrt(4000)
