"""Rows move to the ranks that read them; their gradients move back and are added up: one collective
each way.

Every rank enters every collective, with no rows where it has none; the order of collectives is that
of the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.stages.exchange.rank_step import CoopLayer, CoopStep
    from stockpot.stages.train.model import Model

__all__ = ["Sent", "exchange", "forward", "sent"]


@dataclass
class Sent:
    """Bytes of rows and gradients that this process has sent to other ranks."""

    bytes: int = 0


sent = Sent()


class _Exchange(torch.autograd.Function):
    """y = (received rows) of x, whose adjoint sends them back and adds each to the row it came
    from.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, send: Tensor, to: list[int], received: list[int], group: Any
    ) -> Tensor:
        ctx.save_for_backward(send)
        ctx.sizes, ctx.rows, ctx.group = (to, received), x.shape[0], group
        return _moved(x.index_select(0, send), to, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (send,) = grads, ctx.saved_tensors
        to, received = ctx.sizes
        back = _moved(grad.contiguous(), received, to, ctx.group)
        return (
            grad.new_zeros((ctx.rows, *grad.shape[1:])).index_add_(0, send, back),
            None,
            None,
            None,
            None,
        )


def _moved(rows: Tensor, to: Sequence[int], received: Sequence[int], group: Any) -> Tensor:
    sent.bytes += rows.numel() * rows.element_size()
    out = rows.new_empty((sum(received), *rows.shape[1:]))
    distributed.all_to_all_single(out, rows, list(received), list(to), group=group)
    return out


def exchange(x: Tensor, layer: CoopLayer, group: Any = None) -> Tensor:
    """The rows of other ranks that this layer reads, [received, ...], of x [own, ...].

    Differentiable where x is; a collective of all ranks of `group`, and another in the backward
    pass.
    """
    return cast("Tensor", _Exchange.apply(x, layer.send, layer.sent, layer.received, group))


def forward(model: Model, step: CoopStep, group: Any = None) -> Tensor:
    """Logits of the rank's own outputs, f[outputs, classes]; every row is computed by its owner
    alone.

    Equal to a pass of one process over the whole step but for the order in which sums are rounded,
    its gradients summed over ranks too (arXiv 2310.12403, algorithm 1). What crosses is what a
    layer's own part (`Model.project`) makes of a row; at the first layer the stored features where
    they are narrower.
    """
    x = step.x
    if not step.layers:
        return model(x, ())
    for i, layer in enumerate(step.layers):
        if i == 0 and step.codes is not None:
            far = step.decoded(exchange(step.codes, layer, group))
            columns = cast("Tensor", model.project(0, torch.cat([x[: layer.own], far])))
        else:
            mine = cast("Tensor", model.project(i, x))
            columns = torch.cat([mine[: layer.own], exchange(mine, layer, group)])
        x = model.layer(i, columns, layer.adj)
    return x
