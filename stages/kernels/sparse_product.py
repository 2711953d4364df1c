"""What a training step does beside dense matrix products, fused and with exact gradients; nothing
is transposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stockpot.stages.hag.product.matrix import HagMatrix
from stockpot.stages.kernels.precision import in_float32
from stockpot.stages.kernels.threads import on_spans, spans

if TYPE_CHECKING:
    from stockpot.stages.step import Sparse

__all__ = ["dropout_mask", "norm_relu_dropout", "product", "reads", "spmm"]


def reads(csr: Sparse) -> int:
    """Rows of `x` that a product reads: entries of a CSR tensor, fewer of a HAG."""
    return int(csr.reads if isinstance(csr, HagMatrix) else csr.values().numel())


class _Spmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, csr: Sparse, t_csr: Sparse, x: Tensor) -> Tensor:
        ctx.t_csr = t_csr  # plain attribute: a sparse matrix that never needs a gradient
        return product(csr, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, product(ctx.t_csr, grad.contiguous())


def product(csr: Sparse, x: Tensor) -> Tensor:
    """`csr @ x` in a tensor of its own, without a gradient; as `spmm`."""
    if isinstance(csr, HagMatrix):
        return csr.product(x)
    # The native kernel behind the reduction is a third faster than MKL's behind a plain `mm`; CPU
    # only.
    return torch.sparse.mm(csr, x) if x.is_cuda else torch.sparse.mm(csr, x, "sum")


@in_float32
def spmm(csr: Sparse, t_csr: Sparse | None, x: Tensor) -> Tensor:
    """`csr @ x`, whose gradient is `t_csr @ grad`: nothing is transposed at run time.

    Parameters
    ----------
    csr : sparse f4[rows, cols], see `stockpot.stages.step.Adj`.
    t_csr : sparse f4[cols, rows], its exact transpose; None where `x` needs no gradient.
    x : f4[cols, dim].

    Returns
    -------
    f4[rows, dim]; O(reads dim). No gradient is computed where `x` needs none.
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return product(csr, x)
    if t_csr is None:
        raise ValueError("sparse product: a gradient needs the transpose; these steps bring none")
    return _Spmm.apply(csr, t_csr, x)


def _seed(generator: torch.Generator | None, device: Any) -> np.uint64:
    """Of one mask: 64 bits of the generator."""
    word = torch.empty(1, dtype=torch.int64, device=device)
    word.random_(-(2**63), None, generator=generator)
    return np.uint64(int(word) & (2**64 - 1))


def dropout_mask(
    shape: tuple[int, int], threshold: int, generator: torch.Generator | None, device: Any
) -> Tensor:
    """u1[shape] of 0 (dropped, with probability threshold / 256) and 1, one random byte an element.

    On a CPU the generator gives one seed, whose stream is counted through: its own numbers take
    longer than LayerNorm and ReLU together. torch's own dropout draws one float an element.
    """
    if torch.device(device).type != "cpu":
        count = shape[0] * shape[1]
        words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
        words.random_(
            -(2**63), None, generator=generator
        )  # without a lower end only 63 of the 64 bits are random
        return words.view(torch.uint8)[:count].view(shape).ge_(threshold)
    from stockpot.stages.kernels.norm_kernel import keep_mask

    mask = torch.empty(shape, dtype=torch.uint8)
    rows = spans(shape[0], mask.numel())
    on_spans(rows, keep_mask, _seed(generator, device), threshold, mask.numpy())
    return mask


class _NormReluDropout(torch.autograd.Function):
    """By torch's operators, on any device."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        p: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        threshold = round(p * 256)
        scale = 256 / (256 - threshold)  # the share really kept, so that the expectation is exact
        # ReLU and dropout commute with a positive factor: scaling the affine weights saves a pass
        # over the matrix.
        out, mean, rstd = torch.native_layer_norm(
            x, [x.shape[1]], weight * scale, bias * scale, eps
        )
        out.relu_().mul_(dropout_mask((x.shape[0], x.shape[1]), threshold, generator, x.device))
        ctx.save_for_backward(x, mean, rstd, weight, bias, out)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias, out = ctx.saved_tensors
        # out > 0 exactly where the ReLU was open and the mask kept the element: no mask needs to be
        # stored.
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        dx, dw, db = torch.ops.aten.native_layer_norm_backward(
            grad,
            x,
            [x.shape[1]],
            mean,
            rstd,
            weight * ctx.scale,
            bias,
            [ctx.needs_input_grad[0], True, True],
        )
        return dx, dw.mul_(ctx.scale), db.mul_(ctx.scale), None, None, None


class _FusedNormReluDropout(torch.autograd.Function):
    """By one kernel forward and one backward, on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        p: float,
        generator: torch.Generator | None,
        shift: Tensor | None,
    ) -> Tensor:
        from stockpot.stages.kernels.norm_kernel import forward

        threshold = round(p * 256)
        ctx.scale = 256 / (256 - threshold)  # as above
        x = x.contiguous()
        scaled, moved = weight * ctx.scale, torch.zeros_like(weight) if shift is None else shift
        out, (mean, rstd) = torch.empty_like(x), x.new_empty((2, x.shape[0]))
        arrays = (a.detach().numpy() for a in (x, moved, scaled, bias * ctx.scale))
        on_spans(
            spans(x.shape[0], x.numel()),
            forward,
            *arrays,
            eps,
            _seed(generator, x.device),
            threshold,
            mean.numpy(),
            rstd.numpy(),
            out.numpy(),
        )
        ctx.save_for_backward(x, moved, scaled, out, mean, rstd)
        ctx.shifted = shift is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from stockpot.stages.kernels.norm_kernel import BLOCK, backward

        saved = ctx.saved_tensors
        x = saved[0]
        blocks = -(-x.shape[0] // BLOCK)
        dx, sums = torch.empty_like(x), x.new_empty((blocks, 3, x.shape[1]))
        arrays = (a.detach().numpy() for a in (grad.contiguous(), *saved, dx, sums))
        on_spans(spans(blocks, x.numel()), backward, *arrays)
        dw, db, ds = sums.sum(0)
        own = ds if ctx.shifted else None
        return dx, dw.mul_(ctx.scale), db.mul_(ctx.scale), None, None, None, own


@in_float32
def norm_relu_dropout(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    p: float,
    generator: torch.Generator | None,
    shift: Tensor | None = None,
) -> Tensor:
    """`dropout(relu(layer_norm(x + shift)))`.

    Parameters
    ----------
    x : f4[rows, dim].
    weight, bias : f4[dim], of the LayerNorm.
    p : probability of dropping an element, in [0, 1); kept to the nearest 1/256. 0 in evaluation.
    generator : source of the mask; torch's default generator where None.
    shift : f4[dim], the bias of the layer before, whose gradient costs no pass of its own here;
        None: 0.

    Returns
    -------
    f4[rows, dim]
    """
    drops = round(p * 256) > 0
    fused = drops and not x.is_cuda
    if shift is not None and not fused:
        x = x + shift
    if not drops:
        return functional.layer_norm(x, [x.shape[1]], weight, bias, eps).relu_()
    if fused:
        return _FusedNormReluDropout.apply(x, weight, bias, eps, p, generator, shift)
    return _NormReluDropout.apply(x, weight, bias, eps, p, generator)
