"""Averages of weights are exact and streamed: one ingredient and one sum in memory, whatever their number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

__all__ = ["Average", "greedy", "uniform"]

State = dict[str, "Tensor"]


@dataclass
class Average:
    """Running mean of state dicts.

    Sums are float64: those of equal float32 weights are exact, so a soup of identical ingredients is the ingredient.
    """

    count: int = 0
    sums: State = field(default_factory=dict)
    types: dict[str, torch.dtype] = field(default_factory=dict)

    def add(self, state: Mapping[str, Tensor]) -> None:
        """Add one ingredient, tensor by tensor by name; O(P)."""
        for name, values in state.items():
            if name in self.sums:
                self.sums[name] += values
            else:
                self.sums[name], self.types[name] = values.to(torch.float64, copy=True), values.dtype
        self.count += 1

    def mean(self, extra: Mapping[str, Tensor] | None = None) -> State:
        """The mean in the ingredients' types, with `extra` counted as one more of them where given; O(P)."""
        total = self.count + (extra is not None)
        return {
            name: ((values if extra is None else values + extra[name]) / total).to(self.types[name])
            for name, values in self.sums.items()
        }


def uniform(load: Callable[[int], Mapping[str, Tensor]], members: Sequence[int]) -> State:
    """Mean of all members. O(N P) time, 2 P memory beside one ingredient, no evaluation."""
    average = Average()
    for i in members:
        average.add(load(i))
    return average.mean()


def greedy(
    load: Callable[[int], Mapping[str, Tensor]],
    order: Sequence[int],
    first: float,
    accuracy: Callable[[State], float],
) -> tuple[State, list[int]]:
    """Greedy soup (arXiv 2203.05482): add an ingredient where the soup's accuracy rises.

    Parameters
    ----------
    load : weights of an ingredient by number.
    order : ingredients, the best first.
    first : accuracy of the first of them.
    accuracy : of a candidate's weights, on the selection set.

    Returns
    -------
    (weights, members in the order they were taken); never below the best single on the selection set.
    O(N P) time beside N - 1 evaluations, 3 P memory beside one ingredient.
    """
    average = Average()
    average.add(load(order[0]))
    members, best = [order[0]], first
    for i in order[1:]:
        state = load(i)
        found = accuracy(average.mean(state))
        if found > best:
            average.add(state)
            members.append(i)
            best = found
    return average.mean(), members
