"""A checkpoint is one atomic file with everything a training needs to go on bit by bit, or it is
not used.

Two are kept: the newest and the one before. A damaged one is set aside, never half read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import Corrupt
from stockpot.stages.train.state import read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from stockpot.stages.train.model import Network

__all__ = ["NEWEST", "PREVIOUS", "Kept", "Progress", "load", "load_start", "save", "save_start"]

Kept = dict[str, dict[str, "Tensor"]]
"""Weights beside the model's own: "best" on validation, "ema" where they are averaged, and "tail-E"
of each epoch E of the tail."""
_OWN = ("model", "adam", "generator")

NEWEST, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


@dataclass
class Progress:
    """Where a training stands, as JSON; tensors stand beside it in the file.

    Attributes
    ----------
    epoch : epoch to go on with.
    loader : state of the training steps inside that epoch, None at its start.
    loss_sum, correct, labelled : of the steps of that epoch so far.
    history : one row per finished epoch.
    best : epoch, accuracy and loss of the best validation so far; None before the first.
    rate : learning rate.
    plateau : state of the plateau schedule, None where another one is used.
    seconds : spent so far, over all attempts.
    threads : the training's thread count: another one could round differently.
    """

    epoch: int = 0
    loader: dict[str, Any] | None = None
    loss_sum: float = 0.0
    correct: int = 0
    labelled: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    rate: float = 0.0
    plateau: dict[str, Any] | None = None
    seconds: float = 0.0
    threads: int = 1


def save(
    folder: Path,
    identity: Mapping[str, Any],
    progress: Progress,
    model: Network,
    adam: torch.optim.Adam,
    kept: Kept,
) -> None:
    """Write the newest checkpoint; the one that was newest becomes the previous one.

    A kill at any point leaves at least one of them whole.
    """
    tensors = _tensors(model, adam)
    for group, state in kept.items():
        tensors |= {f"{group}.{name}": values for name, values in state.items()}
    if model.generator is not None:
        tensors["generator"] = model.generator.get_state()
    newest = folder / NEWEST
    fresh = folder / "checkpoint.next.safetensors"
    write_state(fresh, tensors, {"identity": dict(identity), "progress": vars(progress)})
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    fresh.replace(newest)


def _tensors(model: Network, adam: torch.optim.Adam) -> dict[str, Tensor]:
    tensors = {f"model.{name}": values for name, values in model.state_dict().items()}
    for i, state in adam.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": values for name, values in state.items()}
    return tensors


def save_start(
    path: Path, metadata: Mapping[str, Any], model: Network, adam: torch.optim.Adam
) -> None:
    """Write the state that several trainings go on from: weights and the optimiser's moments, no
    random numbers.
    """
    write_state(path, _tensors(model, adam), metadata)


def load_start(path: Path, model: Network, adam: torch.optim.Adam) -> dict[str, Any]:
    """Put model and optimiser in the state of a file of `save_start`; its metadata. Rates and
    decays stay as they are.

    Raises
    ------
    Corrupt
        The file is damaged, or of another model.
    """
    tensors, metadata = read_state(path)
    try:
        _restore(tensors, model, adam)
    except (KeyError, RuntimeError) as error:
        raise Corrupt(
            f"{path}: expected the start of a model like this one, found {error}"
        ) from error
    return metadata


def load(
    folder: Path,
    identity: Mapping[str, Any],
    model: Network,
    adam: torch.optim.Adam,
    *,
    mend: bool = True,
) -> tuple[Progress | None, Kept, list[str]]:
    """Restore model, optimiser and dropout generator from the newest whole checkpoint.

    `mend`: what is damaged is set aside; else only passed over.

    Returns
    -------
    (progress, weights kept, what was set aside and why); progress is None where there is nothing to
    resume.
    """
    words: list[str] = []
    for path in (folder / NEWEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            tensors, metadata = read_state(path)
            if metadata["identity"] != dict(identity):
                raise Corrupt(f"{path}: a checkpoint of another training")
            progress = Progress(**metadata["progress"])
            _restore(tensors, model, adam)
        except (Corrupt, KeyError, TypeError, RuntimeError) as error:
            aside = path.with_suffix(".damaged")
            if mend:
                path.replace(aside)
            words.append(f"checkpoint set aside as {aside.name}: {error}")
            continue
        kept: Kept = {}
        for name, values in tensors.items():
            group, _, rest = name.partition(".")
            if group not in _OWN:
                kept.setdefault(group, {})[rest] = values
        return progress, kept, words
    return None, {}, words


def _restore(tensors: Mapping[str, Tensor], model: Network, adam: torch.optim.Adam) -> None:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}}
    for name, values in tensors.items():
        group, _, rest = name.partition(".")
        if group in parts:
            parts[group][rest] = values
    state = adam.state_dict()
    state["state"] = {}
    for name, values in parts["adam"].items():
        i, key = name.split(".", 1)
        state["state"].setdefault(int(i), {})[key] = values
    model.load_state_dict(parts["model"])
    adam.load_state_dict(state)
    if model.generator is not None:
        model.generator.set_state(tensors["generator"])
