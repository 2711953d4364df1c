"""An ingredient is one model of a training: the only one, or one of its tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from stockpot.stages.stage import Facts, Inputs, Reader

__all__ = [
    "MODEL",
    "Ingredient",
    "count",
    "ingredients",
    "model_file",
    "model_files",
    "models",
    "roles",
]

MODEL = "model.safetensors"
"""File of a training's only model."""


@dataclass(frozen=True)
class Ingredient:
    """One model of a training.

    Attributes
    ----------
    name : "ingredient:I", I its number among all ingredients of a soup.
    facts : of its training; epoch and scores are its own.
    reader, file : where it is.
    """

    name: str
    facts: Facts
    reader: Reader
    file: str

    @property
    def path(self) -> Path:
        """The file, digest-checked on first use in the process."""
        return self.reader.path(self.file)


def model_file(number: int) -> str:
    """File of a model of a tail, numbered from 0 by its epoch.

    >>> model_file(3)
    'model-03.safetensors'
    """
    return f"model-{number:02}.safetensors"


def model_files(facts: Facts) -> list[str]:
    """Files of the models of an artifact of `train`, in the order of their numbers."""
    return [model_file(i) for i in range(len(facts["models"]))] if "models" in facts else [MODEL]


def models(facts: Facts) -> list[Facts]:
    """Facts of each model of an artifact of `train`: what its tail says of a model replaces what
    is said of the training.
    """
    if "models" not in facts:
        return [facts]
    shared = {name: facts[name] for name in facts if name != "models"}
    return [{**shared, **own} for own in facts["models"]]


def roles(names: Iterable[str]) -> list[str]:
    """Roles "ingredient:0", "ingredient:1", ... of the trainings, in the order of their numbers."""
    return sorted(
        (role for role in names if role.startswith("ingredient:")),
        key=lambda role: int(role.split(":")[1]),
    )


def ingredients(inputs: Inputs) -> list[Ingredient]:
    """Every model of the trainings among the inputs, numbered over all of them."""
    every = [
        (facts, inputs[role], file)
        for role in roles(inputs)
        for facts, file in zip(
            models(inputs[role].facts), model_files(inputs[role].facts), strict=True
        )
    ]
    return [Ingredient(f"ingredient:{i}", *one) for i, one in enumerate(every)]


def count(facts: Mapping[str, Any]) -> int:
    """Models of the trainings whose facts these are, by role; built or guessed."""
    return sum(len(models(facts[role])) for role in roles(facts))
