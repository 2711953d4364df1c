"""A share of the validation outputs is kept from training's early stop, and seen by souping
alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.influence.permutation import scramble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.step import Step

__all__ = ["Outputs", "held_out"]

_SEED = 0x501D  # of the draw; the share alone stands in keys


def held_out(input_id: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
    """Which outputs, i8[n] positions in the sorted split, are held out: bool[n], a function of
    position and share.

    >>> bool((held_out(np.arange(1000), 0.2) & ~held_out(np.arange(1000), 0.3)).any())
    False
    """
    return np.asarray(
        (scramble(input_id, _SEED) >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    )


class Outputs:
    """Steps in which only the outputs held out (`held`), or only the others, have labels."""

    def __init__(self, steps: Any, share: float, *, held: bool) -> None:
        self.steps, self.share, self.held = steps, share, held

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> Step:
        return self._masked(self.steps[i])

    def __iter__(self) -> Iterator[Step]:
        return map(self._masked, self.steps)

    def _masked(self, step: Step) -> Step:
        mine = torch.from_numpy(held_out(step.input_id.cpu().numpy(), self.share) == self.held).to(
            step.y.device
        )
        return replace(step, y=torch.where(mine, step.y, -1))
