"""A layer's products of neighbours and of the node itself as one function, its gradients added
inside the dense product.

torch's own rules for `A x W_l^T + b + x[:rows] W_r^T` fill a matrix of zeros for the slice, copy
the gradient of the node itself into it and add it to that of the neighbours: three passes over the
activations that a product with `beta = 1` needs none of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stockpot.stages.kernels.sparse_product import product

if TYPE_CHECKING:
    from stockpot.stages.step import Adj

__all__ = ["layer_product"]


class _LayerProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        own_weight: Tensor,
        adj: Adj,
        first: bool,
        narrow: torch.dtype | None,
    ) -> Tensor:
        def cast(t: Tensor) -> Tensor:
            return t if narrow is None else t.to(narrow)

        rows = adj.csr.shape[0]
        with torch.autocast(x.device.type, enabled=False):
            left, right, own = cast(weight), cast(own_weight), cast(x[:rows])
            if first:
                read = cast(product(adj.csr, x))
                out = read @ left.t() if bias is None else torch.addmm(cast(bias), read, left.t())
            else:
                read = cast(x)
                wide = (read @ left.t()).to(x.dtype)
                sums = product(adj.csr, wide)
                out = cast(sums if bias is None else sums.add_(bias))
            out.addmm_(own, right.t())
        ctx.save_for_backward(read, own, left, right)
        ctx.t_csr, ctx.first, ctx.kinds = adj.t_csr, first, (x.dtype, weight.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        read, own, left, right = ctx.saved_tensors
        kind, weights = ctx.kinds
        dx: Tensor | None = None
        weight: Tensor | None = None
        own_weight = grad.t() @ own
        bias = grad.sum(0, dtype=weights) if ctx.needs_input_grad[2] else None
        if ctx.first:
            weight = grad.t() @ read
            if ctx.needs_input_grad[0]:
                dx = product(ctx.t_csr, (grad @ left).to(kind))
        elif ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            back = product(ctx.t_csr, grad.to(kind).contiguous()).to(grad.dtype)
            weight = back.t() @ read
            if ctx.needs_input_grad[0]:
                dx = (back @ left).to(kind)
        if dx is not None:
            mine = dx[: own.shape[0]]
            if grad.dtype == kind:
                mine.addmm_(grad, right)
            else:
                mine += grad @ right
        weight = None if weight is None else weight.to(weights)
        return dx, weight, bias, own_weight.to(weights), None, None, None


def layer_product(
    adj: Adj, x: Tensor, weight: Tensor, bias: Tensor | None, own_weight: Tensor, *, first: bool
) -> Tensor:
    """`A x weight^T + bias + x[:rows] own_weight^T`, with its exact gradient.

    Parameters
    ----------
    adj : A, f[rows, cols], and its transpose where a gradient goes through it.
    x : f4|f8[cols, in].
    weight, own_weight : f[out, in]. bias : f[out]; None: 0.
    first : aggregate before the dense product, `(A x) weight^T`, or after it.

    Returns
    -------
    f[rows, out]; bfloat16 where torch's autocast says so, and then dense products are computed in
    it, sums over nodes in the type of x.

    Raises
    ------
    ValueError
        A gradient needs the transpose, and `adj` has none.
    """
    needed = torch.is_grad_enabled() and (x.requires_grad if first else weight.requires_grad)
    if needed and adj.t_csr is None:
        raise ValueError("sparse product: a gradient needs the transpose; these steps bring none")
    device = x.device.type
    narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    x = x.float() if x.dtype == narrow else x
    return _LayerProduct.apply(x, weight, bias, own_weight, adj, first, narrow)
