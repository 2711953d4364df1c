"""A checkpoint is one atomic file with everything a training needs to go on bit by bit, or it is not used.

Two are kept: the newest and the one before. A damaged one is set aside, never half read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.errors import Corrupt
from stages.train.state import read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from stages.train.model import Network

__all__ = ["NEWEST", "PREVIOUS", "Progress", "load", "save"]

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
    best: Mapping[str, Tensor],
) -> None:
    """Write the newest checkpoint; the one that was newest becomes the previous one.

    A kill at any point leaves at least one of them whole.
    """
    tensors = {f"model.{name}": values for name, values in model.state_dict().items()}
    tensors |= {f"best.{name}": values for name, values in best.items()}
    for i, state in adam.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": values for name, values in state.items()}
    if model.generator is not None:
        tensors["generator"] = model.generator.get_state()
    newest = folder / NEWEST
    fresh = folder / "checkpoint.next.safetensors"
    write_state(fresh, tensors, {"identity": dict(identity), "progress": vars(progress)})
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    fresh.replace(newest)


def load(
    folder: Path, identity: Mapping[str, Any], model: Network, adam: torch.optim.Adam
) -> tuple[Progress | None, dict[str, Tensor], list[str]]:
    """Restore model, optimiser and dropout generator from the newest whole checkpoint.

    Returns
    -------
    (progress, best weights, what was set aside and why); progress is None where there is nothing to resume.
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
            path.replace(aside)
            words.append(f"checkpoint set aside as {aside.name}: {error}")
            continue
        best = {name.removeprefix("best."): values for name, values in tensors.items() if name.startswith("best.")}
        return progress, best, words
    return None, {}, words


def _restore(tensors: Mapping[str, Tensor], model: Network, adam: torch.optim.Adam) -> None:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "adam": {}}
    for name, values in tensors.items():
        if name != "generator":
            group, rest = name.split(".", 1)
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
