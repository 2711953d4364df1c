"""A student is taught a teacher's probabilities row by row; rows it is not to see are never
read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from stockpot.stages.kernels.precision import products
from stockpot.stages.student.lesson import BATCH
from stockpot.stages.student.student_network import StudentNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.student.lesson import Lesson

__all__ = ["predicted", "standard", "taught", "teaching_step"]

RATE = 1e-3
"""Adam's first rate, which falls to 0 by a cosine."""
PREDICTED_ROWS = 16_384
"""Rows predicted at a time."""


def standard(x: NDArray[np.float32], ids: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean, and 1 / standard deviation, of the columns over some rows: f4[F] both.

    Summed in float64, a block at a time; a column that is constant has a scale of 1. O(n F).
    """
    total, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for start in range(0, len(ids), PREDICTED_ROWS):
        block = x[ids[start : start + PREDICTED_ROWS]].astype(np.float64)
        total += block.sum(0)
        square += (block * block).sum(0)
    mean = total / len(ids)
    spread = np.sqrt(np.maximum(square / len(ids) - mean * mean, 0.0))
    constant = spread <= 1e-6 * np.abs(mean)
    scale = 1.0 / np.where(constant, 1.0, spread)
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(scale.astype(np.float32))


def teaching_step(
    student: StudentNetwork,
    adam: torch.optim.Optimizer,
    rows: Tensor,
    targets: Tensor,
    precision: str,
) -> float:
    """One step of Adam on the mean cross-entropy between probabilities of the teacher and those of
    the student: the Kullback-Leibler divergence and a constant. Returns it.
    """
    with products(precision, rows.device):
        logits = student(rows)
    loss = functional.cross_entropy(logits.float(), targets)
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()
    return float(loss.detach())


def taught(
    x: NDArray[np.float32],
    targets: NDArray[np.float32],
    ids: NDArray[np.int64],
    lesson: Lesson,
    report: Callable[[str], Any] | None = None,
    device: str = "cpu",
) -> StudentNetwork:
    """A student of the rows `ids`, in eval mode on the CPU.

    Parameters
    ----------
    x : f4[N, F], rows of all nodes. targets : f4[N, C], probabilities by the teacher.
    ids : i8[n], the nodes it is taught; of no other node a row or a target is read.
    report : called after every epoch.

    Returns
    -------
    It reads rows of `x` as they are. O(epochs n hidden (F + hidden + C)) time.
    """
    shift, scale = (part.to(device) for part in standard(x, ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lesson.seed)
        student = StudentNetwork(x.shape[1], lesson.hidden, targets.shape[1], lesson.dropout)
    student.to(device).train()
    student.generator = torch.Generator(device).manual_seed(lesson.seed)
    order = np.random.default_rng(lesson.seed)
    adam = torch.optim.Adam(student.parameters(), lr=RATE)
    steps = math.ceil(len(ids) / BATCH)
    for epoch in range(lesson.epochs):
        total = 0.0
        shuffled = order.permutation(ids)
        for step in range(steps):
            done = (epoch * steps + step) / (lesson.epochs * steps)
            for group in adam.param_groups:
                group["lr"] = 0.5 * RATE * (1 + math.cos(math.pi * done))
            some = shuffled[step * BATCH : (step + 1) * BATCH]
            rows = (torch.from_numpy(x[some]).to(device) - shift) * scale
            if lesson.noise:
                rows += lesson.noise * torch.randn(
                    rows.shape, generator=student.generator, device=device
                )
            told = torch.from_numpy(targets[some]).to(device)
            total += teaching_step(student, adam, rows, told, lesson.precision)
        if report is not None:
            report(
                f"epoch {epoch + 1}/{lesson.epochs} of {len(ids)} nodes, loss {total / steps:.3f}"
            )
    student.read_plain(shift, scale)
    return student.cpu().eval()


@torch.no_grad()
def predicted(student: StudentNetwork, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities f4[n, C] of rows f4[n, F], a block of rows at a time."""
    found = [
        student(torch.from_numpy(x[start : start + PREDICTED_ROWS])).softmax(1).numpy()
        for start in range(0, max(1, len(x)), PREDICTED_ROWS)
    ]
    return np.concatenate(found)
