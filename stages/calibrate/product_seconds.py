"""How long a dense layer of a training step takes, in each precision."""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional

from stockpot.stages.kernels.precision import products

__all__ = ["product_seconds"]

TURNS = 9
"""Measurements of a precision; the first, which may compile, is left out."""


def product_seconds(device: str, rows: int, width: int) -> dict[str, float | None]:
    """Seconds of `x W^T` and its gradients, forward and backward as the trainer calls them, of x
    f4[rows, width] and W f4[width, width]; by precision, medians of turns. None: the device has no
    bfloat16.
    """
    there = torch.device(device)
    precisions = ["fp32", "bf16"]
    if there.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        precisions.remove("bf16")
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(size, width, generator=generator).to(there).requires_grad_()
        for size in (rows, width)
    )
    seconds: dict[str, list[float]] = {precision: [] for precision in precisions}
    for _ in range(TURNS + 1):
        for precision, times in seconds.items():
            x.grad = weight.grad = None
            _finished(there)
            started = time.perf_counter()
            with products(precision, there):
                out = functional.linear(x, weight)
            out.backward(torch.ones_like(out))
            _finished(there)
            times.append(time.perf_counter() - started)
    without: dict[str, float | None] = {"bf16": None}
    return without | {name: statistics.median(times[1:]) for name, times in seconds.items()}


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
