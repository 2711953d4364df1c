"""Ingredients stay on disk: their files are memory maps, read tensor by tensor, whatever their
number.

A soup is a table alpha f8[T, N]: tensor t of the soup is `sum_i alpha[t, i] W_i[t]`. A method that
weighs whole models or layers has equal rows inside a model or a layer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.errors import BadInput, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

__all__ = ["GRANULARITIES", "Stack", "groups"]

GRANULARITIES = ("global", "layer", "tensor")


def groups(names: Sequence[str], granularity: str) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the groups, and the group of each tensor i8[T].

    A layer is what stands before a tensor's own name: up to the first number in it, or all but the
    last part.

    >>> groups(["convs.0.lin.weight", "convs.0.bias", "head.weight"], "layer")
    (['convs.0', 'head'], array([0, 0, 1]))
    """
    if granularity == "global":
        return ["all"], np.zeros(len(names), np.int64)
    if granularity == "tensor":
        return list(names), np.arange(len(names))

    def layer(name: str) -> str:
        found = re.match(r"(?:[^.]+\.)*?\d+(?=\.)", name)
        return found.group() if found else name.rpartition(".")[0] or name

    labels = list(dict.fromkeys(map(layer, names)))
    return labels, np.array([labels.index(layer(name)) for name in names])


class Stack:
    """N ingredients' tensors by name, and the two products every method is made of.

    Parameters
    ----------
    states : tensors of each ingredient by name, best as `stages.train.state.read_state` maps them:
        no copies are made.
    model : its parameters are what is mixed (a tied one once, under its first name); its buffers
        never are.
    labels : how errors call the ingredients.

    Raises
    ------
    Conflict
        Names, shapes or types of two ingredients, or of one and the model, differ.
    BadInput
        A weight is not a finite number.
    """

    def __init__(
        self,
        states: Sequence[Mapping[str, Tensor]],
        model: nn.Module,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.states = list(states)
        self.labels = (
            [f"ingredient {i}" for i in range(len(states))] if labels is None else list(labels)
        )
        self.parameters = dict(model.named_parameters())
        self.names = list(self.parameters)
        self.expected = model.state_dict()
        for label, state in zip(self.labels, self.states, strict=True):
            self._check(label, state)

    def _check(self, label: str, state: Mapping[str, Tensor]) -> None:
        expected, first = self.expected, self.labels[0]
        if missing := sorted(expected.keys() ^ state.keys()):
            where = "misses" if missing[0] in expected else "has, unlike the model, a"
            raise Conflict(
                f"soup: {label} {where} tensor {missing[0]}; expected the same names in all "
                f"ingredients",
                fix="soup ingredients of one architecture",
            )
        for name, values in state.items():
            want = self.states[0][name]
            if (
                values.shape != expected[name].shape
                or values.shape != want.shape
                or values.dtype != want.dtype
            ):
                raise Conflict(
                    f"soup: {label} and {first} differ in {name}: expected {want.dtype} "
                    f"{tuple(expected[name].shape)}, "
                    f"found {values.dtype} {tuple(values.shape)}",
                    fix="soup ingredients of one architecture",
                )
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                bad = int((~torch.isfinite(values)).sum())
                raise BadInput(
                    f"soup: {label}: tensor {name}: expected finite numbers, "
                    f"found {bad} of {values.numel()} that are not",
                    fix="leave it out, or train it again with a smaller train.lr",
                )

    def __len__(self) -> int:
        return len(self.states)

    @property
    def bytes(self) -> int:
        """Of one ingredient."""
        return sum(v.numel() * v.element_size() for v in self.states[0].values())

    def pick(self, i: int) -> NDArray[np.float64]:
        """The table of ingredient `i` alone."""
        return self.blend([i])

    def blend(self, members: Iterable[int]) -> NDArray[np.float64]:
        """The table of the plain mean of `members`."""
        alpha = np.zeros((len(self.names), len(self)))
        members = list(members)
        alpha[:, members] = 1 / len(members)
        return alpha

    def lead(self, alpha: NDArray[np.float64]) -> int:
        """The ingredient of largest weight, counted by parameters: buffers that no one may average
        come from it.
        """
        sizes = np.array([self.parameters[name].numel() for name in self.names], np.float64)
        return int(np.argmax(sizes @ alpha))

    @torch.no_grad()
    def mix(self, alpha: NDArray[np.float64], out: Mapping[str, Tensor]) -> None:
        """Write the soup of table `alpha` into the tensors `out` by name.

        Sums are float64, so that a mean of equal ingredients is that ingredient, bit by bit, and
        one ingredient alone is itself. O(N P) time and reads; one tensor in float64 in memory.
        """
        for t, name in enumerate(self.names):
            row = alpha[t]
            total = torch.zeros(self.expected[name].shape, dtype=torch.float64)
            for i in np.flatnonzero(row):
                total.add_(self.states[i][name], alpha=float(row[i]))
            out[name].copy_(total)

    def inner(
        self, grads: Mapping[str, Tensor | None], members: Iterable[int] | None = None
    ) -> NDArray[np.float64]:
        """`d[t, i] = <grad_t, W_i[t]>`, f8[T, N]: the gradient by alpha, where `grads` is that by
        the soup's tensors.

        Of `members`, the others' are 0. O(N P) time and reads, no copy of an ingredient.
        """
        wanted = list(range(len(self)) if members is None else members)
        out = np.zeros((len(self.names), len(self)))
        for t, name in enumerate(self.names):
            grad = grads[name]
            if grad is not None:
                flat = grad.detach().cpu().to(self.states[0][name].dtype).flatten()
                for i in wanted:
                    out[t, i] = float(flat @ self.states[i][name].flatten())
        return out

    def distances(self, alpha: NDArray[np.float64], of: NDArray[np.int64]) -> NDArray[np.float64]:
        """f8[G, N]: how far each ingredient is from the soup of `alpha`, by group `of` each tensor:
        |W_i - W|.
        """
        mixed = {
            name: torch.empty(self.expected[name].shape, dtype=torch.float64) for name in self.names
        }
        self.mix(alpha, mixed)
        squares = np.zeros((int(of.max()) + 1, len(self)))
        for t, name in enumerate(self.names):
            for i, state in enumerate(self.states):
                squares[of[t], i] += float((state[name] - mixed[name]).square().sum())
        return np.sqrt(squares)

    def state(self, alpha: NDArray[np.float64], model: nn.Module) -> dict[str, Any]:
        """The soup as a state dict with all names, tied ones too, and `model`'s current buffers;
        tensors of its own.
        """
        aliases = {id(p): name for name, p in self.parameters.items()}
        every = dict(model.named_parameters(remove_duplicate=False))
        mixed = {name: torch.empty_like(self.states[0][name]) for name in self.names}
        self.mix(alpha, mixed)
        return {
            name: mixed[aliases[id(every[name])]].clone()
            if name in every
            else values.detach().cpu().clone()
            for name, values in model.state_dict().items()
        }
