"""A student is three linear maps of a node's own row: no edge is read, so an answer costs one row
and three products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stockpot.stages.errors import sensible
from stockpot.stages.kernels.sparse_product import norm_relu_dropout
from stockpot.stages.train.state import read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["StudentNetwork", "load_student", "save_student"]


class StudentNetwork(nn.Module):
    """Linear, LayerNorm, ReLU, dropout, twice, and a last linear map to logits.

    Parameters
    ----------
    num_features, hidden, num_classes : widths.
    dropout : share of the hidden values dropped while it is taught.
    """

    def __init__(
        self, num_features: int, hidden: int, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.generator: torch.Generator | None = None
        self.first = nn.Linear(num_features, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, hidden)
        self.second_norm = nn.LayerNorm(hidden)
        self.last = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits f4[n, num_classes] of rows f4[n, num_features]."""
        x = self._hidden(self.first(x), self.first_norm)
        x = self._hidden(self.second(x), self.second_norm)
        return self.last(x)

    def _hidden(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        p = self.dropout if self.training else 0.0
        return norm_relu_dropout(x, norm.weight, norm.bias, norm.eps, p, self.generator)

    @torch.no_grad()
    def read_plain(self, shift: Tensor, scale: Tensor) -> None:
        """Let a network that was taught on `(x - shift) * scale` read `x`: the first map takes both
        in.

        Parameters
        ----------
        shift, scale : f4[num_features].
        """
        self.first.bias.sub_(self.first.weight @ (scale * shift))
        self.first.weight.mul_(scale)


def save_student(path: Path, student: StudentNetwork, metadata: Mapping[str, Any]) -> None:
    """Write weights, widths and `metadata` (JSON) as one safetensors file, atomically."""
    write_state(path, student.state_dict(), metadata)


def load_student(path: Path) -> tuple[StudentNetwork, dict[str, Any]]:
    """Read a student written by `save_student`, in eval mode, and its metadata.

    Raises
    ------
    Corrupt
        The file is damaged, or its tensors are those of no student.
    """
    state, metadata = read_state(path)
    with sensible(f"{path}: the student's tensors"):
        (hidden, features), classes = state["first.weight"].shape, len(state["last.bias"])
        with torch.device("meta"):
            student = StudentNetwork(features, hidden, classes)
        student.load_state_dict(state, assign=True)
    return student.eval(), metadata
