"""Mixing weights by gradient: one softmax, Adam, eval mode, no logit scale; a step reads a few
records, not the graph.

The gradient by a weight is the inner product of the soup's gradient with that ingredient
(`Scorer.gradient`), so one ordinary backward pass serves all N ingredients and no ingredient needs
a gradient of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Adam", "convex_start", "lean", "learn", "learn_signed", "portions", "softmax", "to_raw"]

RATE, STEPS = 0.1, 40
SIGNED_RATE = 0.02
CONVEX_RATE, CONVEX_STEPS = 0.3, 60
FLOOR = 1e-3
"""Least weight a start gives an ingredient, as a share of an even one: a softmax never leaves
zero."""


class Adam:
    """Adam (arXiv 1412.6980) on one array, its rate on a cosine from `rate` to 0 over `steps`."""

    def __init__(self, shape: tuple[int, ...], rate: float, steps: int) -> None:
        self.m, self.v = np.zeros(shape), np.zeros(shape)
        self.rate, self.steps, self.done = rate, steps, 0

    def move(self, values: NDArray[np.float64], grad: NDArray[np.float64]) -> NDArray[np.float64]:
        """`values` after one step down `grad`."""
        rate = self.rate * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        self.done += 1
        self.m = 0.9 * self.m + 0.1 * grad
        self.v = 0.999 * self.v + 0.001 * grad * grad
        m, v = self.m / (1 - 0.9**self.done), self.v / (1 - 0.999**self.done)
        return np.asarray(values - rate * m / (np.sqrt(v) + 1e-8))


def softmax(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row of f8[G, N]."""
    e = np.exp(raw - raw.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def to_raw(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of weights f8[..., N], small ones lifted to `FLOOR / N`: what `softmax` turns back
    into them.
    """
    return np.log(np.maximum(weights, FLOOR / weights.shape[-1]))


def lean(weights: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Gradient of `prior` times the mean over rows of KL(row, even weights), up to what a softmax
    drops: f8[G, N].
    """
    count, n = weights.shape
    return np.asarray(prior / count * np.log(np.maximum(weights * n, 1e-9)))


def convex_start(logits: Tensor, y: Tensor, prior: float = 0.0) -> NDArray[np.float64]:
    """Weights on the simplex that minimise the cross-entropy of `sum_i w_i Z_i`: a convex problem,
    no model is run.

    To first order `f(sum w_i W_i) = sum w_i f(W_i)`, so they are where a soup's weights begin.

    Parameters
    ----------
    logits : f2|f4[N, v, C] of every ingredient, cached.
    y : i8[v], no -1.
    prior : times the weights' divergence from even ones is added.

    Returns
    -------
    f8[N]. O(60 N v C).
    """
    n = logits.shape[0]
    z = logits.float().flatten(1)  # no copy where they are float32
    shape, classes = logits.shape[1:], functional.one_hot(y, logits.shape[2])
    raw, adam = np.zeros((1, n)), Adam((1, n), CONVEX_RATE, CONVEX_STEPS)
    for _ in range(CONVEX_STEPS):
        w = softmax(raw)
        mixed = (torch.from_numpy(w[0]).to(z) @ z).view(shape)
        wrong = (mixed.softmax(1) - classes) / len(y)
        d = (z @ wrong.flatten()).double().cpu().numpy()[None] + lean(w, prior)
        raw = adam.move(raw, w * (d - (w * d).sum(1, keepdims=True)))
    return np.asarray(softmax(raw)[0])


def portions(
    labelled: Sequence[int], records: Sequence[int], least: int, seed: int
) -> Iterator[list[int]]:
    """Records for one step after the other: shuffled anew when used up, together at least `least`
    labelled outputs.
    """
    draw = np.random.default_rng(seed)
    while True:
        part: list[int] = []
        for r in draw.permutation(len(records)):
            part.append(records[r])
            if sum(labelled[i] for i in part) >= least:
                yield part
                part = []
        if part:
            yield part


def learn(
    start: NDArray[np.float64],
    of: NDArray[np.int64],
    gradient: Callable[[NDArray[np.float64], Sequence[int]], NDArray[np.float64]],
    draws: Iterator[Sequence[int]],
    *,
    prior: float = 0.0,
    steps: int = STEPS,
    rate: float = RATE,
) -> NDArray[np.float64]:
    """Learned soup (LS, arXiv 2503.11612) without what made its rates go from 1 to 110 (see
    `stages.soup.published`).

    Parameters
    ----------
    start : f8[T, N] on the simplex, equal rows inside a group.
    of : i8[T], group of each tensor; a group has one row of weights.
    gradient : of the mean cross-entropy by a table, on some records: f8[T, N].
    draws : records of each step.
    prior : times the weights' mean divergence from even ones is added: what keeps many ingredients
        from being fitted to few outputs.

    Returns
    -------
    f8[T, N] on the simplex.
    """
    count = int(of.max()) + 1
    raw = to_raw(np.stack([start[of == g][0] for g in range(count)]))
    adam = Adam(raw.shape, rate, steps)
    for _ in range(steps):
        alpha = softmax(raw)
        d = lean(alpha, prior)
        np.add.at(d, of, gradient(alpha[of], next(draws)))
        raw = adam.move(raw, alpha * (d - (alpha * d).sum(1, keepdims=True)))
    return np.asarray(softmax(raw)[of])


def learn_signed(
    start: NDArray[np.float64],
    of: NDArray[np.int64],
    members: Sequence[int],
    gradient: Callable[[NDArray[np.float64], Sequence[int]], NDArray[np.float64]],
    distances: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    draws: Iterator[Sequence[int]],
    *,
    steps: int = STEPS,
    rate: float = SIGNED_RATE,
    clip: float = 1.0,
) -> NDArray[np.float64]:
    """Signed weights around a soup (MEHL, arXiv 2407.03641): `W = W0 + sum_i X_i D_i / |D_i|`, D_i
    = W_i - W0.

    X begins at 0 and may turn negative. It is counted in multiples of the mean |D_i| of its group,
    so that one rate serves every data set (the paper's .01 is in units of weights); its gradient is
    clipped to norm `clip`.

    Parameters
    ----------
    start : f8[T, N], the table of W0.
    members : ingredients that get a weight.
    distances : |W_i - W0| by group, of a table: f8[G, N].

    Returns
    -------
    f8[T, N], rows sum to 1.
    """
    length = distances(start)
    unit = np.zeros_like(length)
    live = np.zeros_like(length, dtype=bool)
    live[:, list(members)] = length[:, list(members)] > 0
    mean = np.where(live, length, 0).sum(1) / np.maximum(1, live.sum(1))
    np.divide(mean[:, None], length, out=unit, where=live)
    x, adam = np.zeros_like(length), Adam(length.shape, rate, steps)

    def table(x: NDArray[np.float64]) -> NDArray[np.float64]:
        c = (x * unit)[of]
        return np.asarray(start + c - start * c.sum(1, keepdims=True))

    for _ in range(steps):
        d = gradient(table(x), next(draws))
        d = d - (start * d).sum(1, keepdims=True)  # <D_i, grad>
        grad = np.zeros_like(x)
        np.add.at(grad, of, d)
        grad *= unit
        norm = float(np.linalg.norm(grad))
        x = adam.move(x, grad * min(1.0, clip / max(norm, 1e-300)))
    return table(x)
