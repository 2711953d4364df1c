"""A HAG as a sparse matrix `left A right` of torch tensors: its product is that of the CSR, sums
re-associated.

On the CPU by the schedule of `stockpot.stages.hag.product.schedule`; elsewhere level by level in
torch's own operators.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from stockpot.stages.hag.product.schedule import Schedule, extremes, extremes_back, schedule, sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.hag.hag import Hag

__all__ = ["HagMatrix", "extreme", "product"]


class HagMatrix:
    """`diag(left) A diag(right)`, A the CSR that a HAG stands for. One direction: its transpose is
    another one.

    With a diagonal, that many times row i of x is added to row i: the sum without its own term,
    where the HAG has the self-loops and the model does not, or the other way round.

    Parameters
    ----------
    hag : of A.
    left, right : f[rows], f[cols] on one device; None where all are 1.
    diagonal : f[rows or less], of the first rows, which are the first columns; None where there is
        none.
    moved : brings a tensor to the device of the products; None: they run on the CPU.

    Attributes
    ----------
    shape : (rows, columns) of A. reads : rows read by a product, as entries of a CSR are.
    """

    def __init__(
        self,
        hag: Hag,
        left: Tensor | None = None,
        right: Tensor | None = None,
        diagonal: Tensor | None = None,
        moved: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.shape = (hag.num_rows, hag.num_nodes)
        self.reads = hag.reads
        self._factors, self._diagonal = (left, right), diagonal
        self._cast: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self._levels: _Levels | None = None
        self._plan: Schedule | None = None
        if moved is None:
            self._plan = schedule(hag, torch.get_num_threads())
        else:
            self._levels = _Levels(hag, moved)

    def tensors(self) -> list[Tensor]:
        """Those on the device of the products."""
        levels = (
            [] if self._levels is None else [t for part in self._levels.parts for t in part[2:]]
        )
        return [t for t in (*self._factors, self._diagonal, *levels) if t is not None]

    @property
    def plan_bytes(self) -> int:
        """Bytes of the schedule, which are of no tensor: what a kept CPU matrix holds beside
        `tensors`.
        """
        plan = self._plan
        return (
            0
            if plan is None
            else sum(a.nbytes for a in (plan.indptr, plan.mid, plan.indices, plan.tasks))
        )

    def product(self, x: Tensor) -> Tensor:
        """f[rows, dim] of `x` f[cols, dim], without a gradient. O(reads dim).

        Partial sums of 16-bit floats are kept in 32 bits.
        """
        kind = x.dtype
        wide = kind if kind == torch.float64 else torch.float32
        if self._plan is None:
            assert self._levels is not None
            left, right = self._factors
            x = x.detach().to(wide)
            out = self._levels.product(x if right is None else x * right.to(wide)[:, None])
            out = out if left is None else out * left.to(wide)[:, None]
            return self._with_diagonal(out, x).to(kind)
        left, right = self._as(wide)
        out = torch.empty((self.shape[0], x.shape[1]), dtype=wide)
        source = x.detach().to(wide).contiguous().numpy()
        sums(self._plan, source, right.numpy(), left.numpy(), out.numpy(), torch.get_num_threads())
        return self._with_diagonal(out, x.detach()).to(kind)

    def _with_diagonal(self, out: Tensor, x: Tensor) -> Tensor:
        if self._diagonal is not None:
            count = self._diagonal.numel()
            out[:count].addcmul_(self._diagonal.to(out.dtype)[:, None], x[:count].to(out.dtype))
        return out

    def extreme(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        """(largest values of every row, f[rows, dim], and the columns they came from, -1 where a
        row is empty).

        sign : 1, or -1 for the smallest. Factors and diagonal play no part. Of equal values the
            first column is named.
        """
        if self._plan is None:
            assert self._levels is not None
            return self._levels.extreme(x.detach(), sign)
        wide = x.dtype if x.dtype == torch.float64 else torch.float32
        out = torch.empty((self.shape[0], x.shape[1]), dtype=wide)
        arg = torch.empty((self.shape[0], x.shape[1]), dtype=torch.int32)
        source = x.detach().to(wide).contiguous().numpy()
        extremes(self._plan, source, sign, out.numpy(), arg.numpy(), torch.get_num_threads())
        return out.to(x.dtype), arg

    def _as(self, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        """Left and right factors on the CPU in a type, ones where there are none."""
        if kind not in self._cast:
            both = (
                torch.ones(size, dtype=kind) if f is None else f.to(kind)
                for f, size in zip(self._factors, self.shape, strict=True)
            )
            self._cast[kind] = tuple(both)  # type: ignore[assignment]
        return self._cast[kind]


class _Levels:
    """Levels and results as torch CSR tensors on one device: `H[lo:hi] = level @ H[:lo]`, then
    `results @ H`.
    """

    def __init__(self, hag: Hag, moved: Callable[[Tensor], Tensor]) -> None:
        self.cols, self.height = hag.num_nodes, hag.num_buffer
        self.parts: list[
            tuple[int, int, Tensor, Tensor, Tensor]
        ] = []  # (first row, width, pointers, columns, times)
        for start, stop in zip(
            hag.level_ptr[:-1].tolist(), hag.level_ptr[1:].tolist(), strict=True
        ):
            self._add(
                hag.indptr[start : stop + 1], hag.indices, hag.weight, hag.num_nodes + start, moved
            )
        self._add(hag.out_indptr, hag.out_indices, hag.out_weight, hag.num_buffer, moved)

    def _add(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        weight: NDArray[np.int32] | None,
        width: int,
        moved: Callable[[Tensor], Tensor],
    ) -> None:
        span = slice(int(indptr[0]), int(indptr[-1]))
        times = (
            np.ones(span.stop - span.start, np.float32)
            if weight is None
            else weight[span].astype(np.float32)
        )
        arrays = (indptr - indptr[0], indices[span].astype(np.int64), times)
        pointers, columns, weights = (moved(torch.from_numpy(a)) for a in arrays)
        self.parts.append((width, width, pointers, columns, weights))

    def _buffer(self, x: Tensor) -> Tensor:
        buffer = torch.empty((self.height, x.shape[1]), dtype=x.dtype, device=x.device)
        buffer[: self.cols] = x
        return buffer

    def product(self, x: Tensor) -> Tensor:
        buffer = self._buffer(x)
        for i, (first, width, indptr, indices, times) in enumerate(self.parts):
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="Sparse CSR tensor support is in beta state"
                )
                level = torch.sparse_csr_tensor(
                    indptr,
                    indices,
                    times.to(x.dtype),
                    (indptr.numel() - 1, width),
                    check_invariants=False,
                )
            found = level @ buffer[:width]
            if i == len(self.parts) - 1:
                return found
            buffer[first : first + found.shape[0]] = found
        raise AssertionError("a HAG has results")

    def extreme(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        values = self._buffer(x)
        columns = torch.arange(self.cols, device=x.device)[:, None].expand(-1, x.shape[1])
        places = torch.full(values.shape, -1, device=x.device)
        places[: self.cols] = columns
        none = torch.iinfo(torch.int64).max
        for i, (first, _, indptr, indices, _) in enumerate(self.parts):
            rows = indptr.numel() - 1
            row = torch.repeat_interleave(torch.arange(rows, device=x.device), indptr.diff())
            row = row[:, None].expand(-1, x.shape[1])
            read, came = values[indices], places[indices]
            best = torch.zeros((rows, x.shape[1]), dtype=x.dtype, device=x.device)
            best = best.scatter_reduce(
                0, row, read, "amax" if sign > 0 else "amin", include_self=False
            )
            mine = best.gather(0, row)
            same = (read == mine) | (read.isnan() & mine.isnan())
            where = torch.full_like(best, none, dtype=torch.int64)
            where = where.scatter_reduce(0, row, torch.where(same, came, none), "amin")
            where[where == none] = -1
            if i == len(self.parts) - 1:
                return best, where
            values[first : first + rows], places[first : first + rows] = best, where
        raise AssertionError("a HAG has results")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: HagMatrix, turned: HagMatrix, x: Tensor) -> Tensor:
        ctx.turned = turned
        return matrix.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.turned.product(grad)


def product(matrix: HagMatrix, turned: HagMatrix, x: Tensor) -> Tensor:
    """`matrix @ x` with the exact gradient `turned @ grad`; `turned` is the HAG of the
    transpose.
    """
    return _Product.apply(matrix, turned, x)


class _Extreme(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: HagMatrix, x: Tensor, sign: int) -> Tensor:
        out, arg = matrix.extreme(x, sign)
        ctx.save_for_backward(arg)
        ctx.shape = x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (arg,) = ctx.saved_tensors
        if grad.is_cuda:
            out = torch.zeros(
                (ctx.shape[0] + 1, ctx.shape[1]), dtype=grad.dtype, device=grad.device
            )
            return (
                None,
                out.scatter_add_(0, arg.long() % out.shape[0], grad)[:-1],
                None,
            )  # -1 is the row left out
        wide = grad.dtype if grad.dtype == torch.float64 else torch.float32
        out = torch.zeros(ctx.shape, dtype=wide)
        extremes_back(arg.to(torch.int32).numpy(), grad.to(wide).contiguous().numpy(), out.numpy())
        return None, out.to(grad.dtype), None


def extreme(matrix: HagMatrix, x: Tensor, sign: int) -> Tensor:
    """Largest (sign 1) or smallest (-1) of every row, bit-equal to the CSR's; its gradient goes to
    the first.
    """
    return _Extreme.apply(matrix, x, sign)
