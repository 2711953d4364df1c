"""How a student is taught; described without torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BATCH", "Lesson"]

BATCH = 1024
"""Rows of a step."""


@dataclass(frozen=True)
class Lesson:
    """How a student is taught.

    Attributes
    ----------
    hidden : its width. epochs : passes over the rows.
    dropout : share of the hidden values dropped. noise : standard deviation of the normal noise
        that is added to the rows, whose columns have a deviation of 1 then.
    precision : "fp32" or "bf16", of the products. seed : of weights, order, dropout and noise.
    """

    hidden: int
    epochs: int
    dropout: float
    noise: float
    precision: str = "fp32"
    seed: int = 0
