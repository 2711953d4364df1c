"""Graph attention by segment softmax over CSR rows: no temporary is larger than one value an edge
and head.

Equations (arXiv 1710.10903, as torch_geometric's `GATConv`), for edge i <- j and head h:

    e_ijh = leaky_relu(source_jh + target_ih),  a_ijh = softmax over j of e_ijh,  out_ih = sum over
    j of a_ijh z_jh

The numba kernels work row by row, so any number of threads gives the same bits; on a GPU torch's
operators do the same.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stockpot.stages.ingest.csr import frozen
from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.precision import in_float32
from stockpot.stages.kernels.threads import on_spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.step import Adj

__all__ = ["SLOPE", "attend"]

SLOPE = 0.2  # of the leaky ReLU
_EDGE_FLOATS = (
    1 << 22
)  # of a GPU's temporary while the gradient of the attention is computed: 16 MiB


@njit(cache=True, nogil=True, fastmath={"contract"})
def _forward(
    start: int,
    stop: int,
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    z: NDArray[Any],
    source: NDArray[Any],
    target: NDArray[Any],
    slope: float,
    attention: NDArray[Any],
    out: NDArray[Any],
) -> None:
    heads = source.shape[1]
    width = z.shape[1] // heads
    top, total = np.empty(heads, z.dtype), np.empty(heads, z.dtype)
    for i in range(start, stop):
        out[i] = 0
        top[:] = -np.inf
        total[:] = 0
        for k in range(indptr[i], indptr[i + 1]):
            for h in range(heads):
                e = source[indices[k], h] + target[i, h]
                e = e if e > 0 else e * slope
                attention[k, h] = e
                top[h] = max(top[h], e)
        for k in range(indptr[i], indptr[i + 1]):
            for h in range(heads):
                attention[k, h] = np.exp(attention[k, h] - top[h])
                total[h] += attention[k, h]
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            for h in range(heads):
                a = attention[k, h] / total[h]
                attention[k, h] = a
                for c in range(h * width, (h + 1) * width):
                    out[i, c] += a * z[j, c]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _backward_rows(
    start: int,
    stop: int,
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    z: NDArray[Any],
    source: NDArray[Any],
    target: NDArray[Any],
    slope: float,
    attention: NDArray[Any],
    grad: NDArray[Any],
    edge_grad: NDArray[Any],
    target_grad: NDArray[Any],
) -> None:
    """Gradient of source + target for every edge, before the leaky ReLU, and its sum over each
    row.
    """
    heads = source.shape[1]
    width = z.shape[1] // heads
    mean = np.empty(heads, z.dtype)
    for i in range(start, stop):
        mean[:] = 0
        target_grad[i] = 0
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            for h in range(heads):
                dot = z.dtype.type(0)
                for c in range(h * width, (h + 1) * width):
                    dot += grad[i, c] * z[j, c]
                edge_grad[k, h] = dot
                mean[h] += attention[k, h] * dot
        for k in range(indptr[i], indptr[i + 1]):
            for h in range(heads):
                e = attention[k, h] * (edge_grad[k, h] - mean[h])
                if source[indices[k], h] + target[i, h] <= 0:
                    e *= slope
                edge_grad[k, h] = e
                target_grad[i, h] += e


@njit(cache=True, nogil=True, fastmath={"contract"})
def _backward_cols(
    start: int,
    stop: int,
    t_indptr: NDArray[np.integer[Any]],
    t_indices: NDArray[np.integer[Any]],
    places: NDArray[np.integer[Any]],
    attention: NDArray[Any],
    grad: NDArray[Any],
    edge_grad: NDArray[Any],
    z_grad: NDArray[Any],
    source_grad: NDArray[Any],
) -> None:
    heads = attention.shape[1]
    width = grad.shape[1] // heads
    for j in range(start, stop):
        z_grad[j] = 0
        source_grad[j] = 0
        for t in range(t_indptr[j], t_indptr[j + 1]):
            i, k = t_indices[t], places[t]
            for h in range(heads):
                a = attention[k, h]
                source_grad[j, h] += edge_grad[k, h]
                for c in range(h * width, (h + 1) * width):
                    z_grad[j, c] += a * grad[i, c]


def _by_rows(kernel: Callable[..., None], pointers: NDArray[np.integer[Any]], *arrays: Any) -> None:
    """Call a kernel on all rows, in spans of about equal edges, on as many threads as torch
    uses.
    """
    rows, threads = pointers.size - 1, torch.get_num_threads()
    if threads == 1 or pointers[-1] < 1 << 14:
        kernel(0, rows, pointers, *arrays)
        return
    ends = np.searchsorted(pointers, np.linspace(0, pointers[-1], threads + 1)[1:-1])
    ends = np.concatenate([[0], ends, [rows]])
    spans = [(int(a), int(b)) for a, b in itertools.pairwise(ends) if a < b]
    on_spans(spans, kernel, pointers, *arrays)


def _arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """Tensors as read-only arrays: one compiled kernel for arrays of a record, of a graph and of
    torch.
    """
    return [frozen(tensor.detach().contiguous().numpy()) for tensor in tensors]


def _edges(csr: Tensor) -> tuple[Tensor, Tensor]:
    return csr.crow_indices(), csr.col_indices()


def forward_cpu(csr: Tensor, z: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(out f[rows, heads * width], attention f[nnz, heads]); see `attend`. O(nnz heads width)."""
    indptr, indices = _arrays(*_edges(csr))
    attention = torch.empty((indices.size, source.shape[1]), dtype=z.dtype)
    out = torch.empty((indptr.size - 1, z.shape[1]), dtype=z.dtype)
    _by_rows(
        _forward,
        indptr,
        indices,
        *_arrays(z, source, target),
        SLOPE,
        attention.numpy(),
        out.numpy(),
    )
    return out, attention


def backward_cpu(
    adj: Adj, z: Tensor, source: Tensor, target: Tensor, attention: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, source and target for the gradient f[rows, heads * width] of the output."""
    assert adj.t_csr is not None
    assert adj.places is not None
    indptr, indices = _arrays(*_edges(adj.csr))
    edge_grad, target_grad = torch.empty_like(attention), torch.empty_like(target)
    z_grad, source_grad = torch.empty_like(z), torch.empty_like(source)
    values = _arrays(z, source, target)
    weights, out_grad = _arrays(attention, grad)
    _by_rows(
        _backward_rows,
        indptr,
        indices,
        *values,
        SLOPE,
        weights,
        out_grad,
        edge_grad.numpy(),
        target_grad.numpy(),
    )
    t_indptr, t_indices, places, edges = _arrays(*_edges(adj.t_csr), adj.places, edge_grad)
    _by_rows(
        _backward_cols,
        t_indptr,
        t_indices,
        places,
        weights,
        out_grad,
        edges,
        z_grad.numpy(),
        source_grad.numpy(),
    )
    return z_grad, source_grad, target_grad


def _rows_of(csr: Tensor) -> Tensor:
    """i8[nnz], the row of every entry."""
    counts = csr.crow_indices().diff()
    return torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts)


def _per_head(csr: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """One sparse product a head: values f[nnz, heads] of `csr`'s pattern times x f[cols, heads *
    width].
    """
    heads = values.shape[1]
    parts = []
    for h, part in enumerate(x.view(x.shape[0], heads, -1).unbind(1)):
        matrix = torch.sparse_csr_tensor(
            *_edges(csr), values[:, h].contiguous(), csr.shape, check_invariants=False
        )
        parts.append(torch.sparse.mm(matrix, part.contiguous()))
    return torch.cat(parts, 1)


def forward_torch(csr: Tensor, z: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """As `forward_cpu`, of torch's operators, for any device."""
    rows, cols = _rows_of(csr), csr.col_indices().long()
    e = functional.leaky_relu(source[cols] + target[rows], SLOPE)
    index = rows[:, None].expand_as(e)
    top = torch.full_like(target, -torch.inf).scatter_reduce_(0, index, e, "amax")
    e = (e - top[rows]).exp_()
    attention = e / torch.zeros_like(target).index_add_(0, rows, e)[rows]
    return _per_head(csr, attention, z), attention


def backward_torch(
    adj: Adj, z: Tensor, source: Tensor, target: Tensor, attention: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `backward_cpu`, of torch's operators, for any device; edges in spans, so that temporaries
    stay small.
    """
    assert adj.t_csr is not None
    assert adj.places is not None
    rows, cols = _rows_of(adj.csr), adj.csr.col_indices().long()
    heads = attention.shape[1]
    width = z.shape[1] // heads
    dots = [
        (grad[i] * z[j]).view(i.numel(), heads, width).sum(2)
        for i, j in zip(
            *(t.split(max(1, _EDGE_FLOATS // z.shape[1])) for t in (rows, cols)), strict=True
        )
    ]
    dot = torch.cat(dots) if dots else attention
    mean = torch.zeros_like(target).index_add_(0, rows, attention * dot)
    e = attention * (dot - mean[rows])
    e = torch.where(source[cols] + target[rows] <= 0, e * SLOPE, e)
    places = adj.places.long()
    z_grad = _per_head(adj.t_csr, attention[places], grad)
    source_grad = torch.zeros_like(source).index_add_(0, cols, e)
    return z_grad, source_grad, torch.zeros_like(target).index_add_(0, rows, e)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adj: Adj, z: Tensor, source: Tensor, target: Tensor) -> Tensor:
        out, attention = (forward_torch if z.is_cuda else forward_cpu)(adj.csr, z, source, target)
        ctx.adj = adj  # plain attribute: its matrices need no gradient
        ctx.save_for_backward(z, source, target, attention)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, source, target, attention = ctx.saved_tensors
        backward = backward_torch if grad.is_cuda else backward_cpu
        return None, *backward(ctx.adj, z, source, target, attention, grad.contiguous())


@in_float32
def attend(adj: Adj, z: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Attention-weighted sum of the rows' neighbours.

    Parameters
    ----------
    adj : pattern of (rows, cols), its values are not read; with `t_csr` and `places` where a
        gradient is taken.
    z : f[cols, heads * width], head after head.
    source, target : f[cols, heads], f[rows, heads], both halves of the attention's logits.

    Returns
    -------
    f[rows, heads * width]; zero in rows without neighbours, as torch_geometric. O(nnz heads width)
    time, forward and backward, and nnz heads values of memory each.
    """
    if torch.is_grad_enabled() and z.requires_grad and (adj.t_csr is None or adj.places is None):
        raise ValueError(
            "attention: a gradient needs the transposed pattern and its places; these steps bring "
            "none"
        )
    return _Attend.apply(adj, z, source, target)
