"""Sums of table rows chosen by byte codes, read as the bytes they are, with exact gradients of the
tables.

`out_i = sum over b of tables[b, codes[i, b]]` is what an additive code decodes to, and a linear
layer of it where the tables were multiplied by its weight first. The numba kernels give every
element its terms in one order, whatever the threads; on a GPU torch's `embedding_bag` does the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.precision import in_float32
from stockpot.stages.kernels.threads import on_spans, spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ENTRIES", "table_sum"]

ENTRIES = 256
"""Rows of every table: what a byte can name, so that no code can reach outside."""


@njit(cache=True, nogil=True)
def _sum(
    start: int, stop: int, codes: NDArray[np.uint8], tables: NDArray[Any], out: NDArray[Any]
) -> None:
    """Rows start..stop of `out`; eight terms a pass, so that a row is written once for every eight
    bytes.
    """
    count = codes.shape[1]
    for i in range(start, stop):
        o, c = out[i], codes[i]
        b = 0
        if count >= 8:
            t0, t1, t2, t3 = tables[0, c[0]], tables[1, c[1]], tables[2, c[2]], tables[3, c[3]]
            t4, t5, t6, t7 = tables[4, c[4]], tables[5, c[5]], tables[6, c[6]], tables[7, c[7]]
            for j in range(o.size):
                o[j] = ((t0[j] + t1[j]) + (t2[j] + t3[j])) + ((t4[j] + t5[j]) + (t6[j] + t7[j]))
            b = 8
        else:
            o[:] = 0
        while b + 4 <= count:
            t0, t1, t2, t3 = (
                tables[b, c[b]],
                tables[b + 1, c[b + 1]],
                tables[b + 2, c[b + 2]],
                tables[b + 3, c[b + 3]],
            )
            for j in range(o.size):
                o[j] += (t0[j] + t1[j]) + (t2[j] + t3[j])
            b += 4
        while b < count:
            t0 = tables[b, c[b]]
            for j in range(o.size):
                o[j] += t0[j]
            b += 1


@njit(cache=True, nogil=True)
def _spread(
    start: int, stop: int, codes: NDArray[np.uint8], grad: NDArray[Any], tables: NDArray[Any]
) -> None:
    """Add columns start..stop of every row of `grad` to the table rows its codes name."""
    for i in range(codes.shape[0]):
        g = grad[i, start:stop]
        for b in range(codes.shape[1]):
            t = tables[b, codes[i, b], start:stop]
            for j in range(g.size):
                t[j] += g[j]


class _TableSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, tables: Tensor) -> Tensor:
        ctx.codes, ctx.shape = codes, tables.shape  # plain attribute: bytes have no gradient
        out = tables.new_empty((codes.shape[0], tables.shape[2]))
        arrays = frozen(codes.numpy()), frozen(tables.detach().contiguous().numpy())
        on_spans(spans(codes.shape[0], codes.numel() * tables.shape[2]), _sum, *arrays, out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        out = grad.new_zeros(ctx.shape)
        arrays = frozen(ctx.codes.numpy()), frozen(grad.contiguous().numpy())
        width = ctx.shape[2]
        on_spans(spans(width, ctx.codes.numel() * width, align=16), _spread, *arrays, out.numpy())
        return None, out


@in_float32
def table_sum(codes: Tensor, tables: Tensor) -> Tensor:
    """Sum of one table row a byte.

    Parameters
    ----------
    codes : u1[n, bytes], contiguous rows.
    tables : f[bytes, 256, width].

    Returns
    -------
    f[n, width]; O(n bytes width), the gradient of the tables too. No n x bytes index is made on a
    CPU.
    """
    if codes.shape[1] != tables.shape[0] or tables.shape[1] != ENTRIES:
        raise ValueError(
            f"table sum: {codes.shape[1]} bytes a row against tables of shape {tuple(tables.shape)}"
        )
    if codes.device.type == "cpu" and tables.dtype in (torch.float32, torch.float64):
        return _TableSum.apply(codes, tables)
    first = ENTRIES * torch.arange(codes.shape[1], device=codes.device)
    return functional.embedding_bag(
        codes.long() + first, tables.reshape(-1, tables.shape[2]), mode="sum"
    )
