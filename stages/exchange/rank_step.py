"""What a model sees of a step on one rank: own feature rows, and a matrix and an exchange for every
layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.stages.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from stockpot.stages.step import Adj

__all__ = ["CoopLayer", "CoopStep", "ShareStep"]


@dataclass(frozen=True)
class ShareStep(Step):
    """One rank's part of a training step that it computes by itself; `num_labelled`: labelled
    outputs of all ranks.
    """

    num_labelled: int


@dataclass(frozen=True)
class CoopLayer:
    """One layer on one rank.

    Attributes
    ----------
    adj : rows = own nodes it computes; columns = `own` own nodes, then the received ones.
    own : own nodes among the columns.
    send : i8[s], own nodes to send, by (rank, place).
    sent, received : rows for and from each rank.
    """

    adj: Adj
    own: int
    send: Tensor
    sent: list[int]
    received: list[int]


@dataclass(frozen=True)
class CoopStep:
    """One rank's part of a training step that all ranks take together.

    Attributes
    ----------
    x : f4[own nodes, num_features].
    layers : the first applied first.
    y, n_id, input_id : of the own nodes, as in `stockpot.stages.step.Step`.
    batch_size : own outputs. num_labelled : labelled outputs of all ranks.
    codes : u1[own nodes, row_bytes], the features as stored, where that is what crosses at the
        first layer.
    decoded : f4[n, num_features] of such codes.
    """

    x: Tensor
    layers: Sequence[CoopLayer]
    y: Tensor
    n_id: Tensor
    input_id: Tensor
    batch_size: int
    num_labelled: int
    codes: Tensor | None
    decoded: Callable[[Tensor], Tensor]
