"""What a path of ingredients means: a run, an artifact, a folder of safetensors or one file; other
files are refused.

Models trained elsewhere are rewritten, whatever names and ties their tensors have, as files like
stockpot's own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.locate import artifact_of
from stockpot.stages.errors import BadInput, Conflict, Corrupt
from stockpot.stages.places import local
from stockpot.stages.train.ingredient import model_files
from stockpot.store.run_folder import read_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor
    from torch.nn import Module

__all__ = ["Ingredient", "adopt", "found", "named_as_in"]

_OURS = "stockpot"  # the metadata entry of stockpot's own files
_SAID = ("seed", "init_digest", "inputs")
"""What a file from elsewhere may say of itself in its metadata, `inputs` as JSON: compared as for
stockpot's own."""
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Ingredient:
    """One model file.

    Attributes
    ----------
    label : as the user named it, for words and errors.
    metadata : what the file says of itself: of stockpot's own, `config`, `init_digest`, `inputs`
        and scores.
    own : written by stockpot.
    """

    label: str
    path: Path
    metadata: Mapping[str, Any]
    own: bool


def found(where: Sequence[Path]) -> list[Ingredient]:
    """All ingredients at these paths, in the order given, files of a folder by their numbers.

    Raises
    ------
    BadInput
        A path is missing or holds no model, a file is no safetensors file, or one stands twice.
    """
    files: list[tuple[str, Path]] = []
    for path in where:
        files += _files(path)
    seen: dict[Path, str] = {}
    for label, path in files:
        if (first := seen.setdefault(path.resolve(), label)) is not label:
            raise BadInput(
                f"soup: {first} and {label} are one file", fix="name every ingredient once"
            )
    return [_look(label, path) for label, path in files]


def _files(path: Path) -> list[tuple[str, Path]]:
    path = local(path, "soup")
    if path.is_file():
        return [(str(path), path)]
    if (path / "run.json").exists():
        names = [name for name in read_run(path)["artifacts"] if re.fullmatch(r"train:\d+", name)]
        names.sort(key=lambda name: int(name.split(":")[1]))
        files = []
        for name in names:
            trained = artifact_of(path, name)
            several = "models" in trained.facts
            files += [
                (f"{path} {name} {file}" if several else f"{path} {name}", trained.path(file))
                for file in model_files(trained.facts)
            ]
    elif (path / "manifest.json").exists():
        own = sorted(path.glob(f"model*{SUFFIX}"))  # of a tail there are several
        files = [(str(p) if len(own) > 1 else str(path), p) for p in own]
    else:
        files = [(str(p), p) for p in sorted(path.glob(f"*{SUFFIX}"), key=_by_number)]
    if not files:
        what = "holds no trained models" if path.is_dir() else "no such file or folder"
        raise BadInput(
            f"soup: {path}: expected a run, a train artifact, a folder of {SUFFIX} files or one of "
            f"them; {what}",
            fix="stockpot soup runs/NAME, or stockpot soup FOLDER --factory package.module:build "
            "--batches runs/NAME",
        )
    return files


def _by_number(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _look(label: str, path: Path) -> Ingredient:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{label}: expected a safetensors file, found {error}",
            fix="save it with safetensors.torch.save_file",
        ) from error
    if _OURS in header:
        from stockpot.stages.train.state import read_state

        metadata = read_state(path)[
            1
        ]  # the tensors too: their digest is what vouches for the metadata
        config = metadata.get("config")
        if (
            not isinstance(config, dict)
            or not {"model", "num_features", "num_classes"} <= config.keys()
        ):
            raise Corrupt(f"{label}: expected a model's configuration in its metadata, found none")
        return Ingredient(label, path, metadata, own=True)
    said: dict[str, Any] = {name: header[name] for name in _SAID if name in header}
    if "inputs" in said:
        try:
            said["inputs"] = json.loads(said["inputs"])
        except ValueError as error:
            raise BadInput(
                f"{label}: its metadata entry inputs: expected JSON, found {error}",
                fix='write {"train": "a digest of the data"}, or leave it out',
            ) from error
    return Ingredient(label, path, said, own=False)


def adopt(ingredient: Ingredient, model: Module, config: Mapping[str, Any], to: Path) -> Ingredient:
    """Rewrite a file from elsewhere as one of stockpot's, for `model`, which the factory made.

    Raises
    ------
    Conflict
        Its tensors are not those of the model.
    """
    from safetensors.torch import load_file

    from stockpot.stages.train.state import write_state

    state = named_as_in(model, load_file(ingredient.path), ingredient.label)
    unsaid = {"init_digest": "", "inputs": {}}
    metadata = {**unsaid, **ingredient.metadata, "config": dict(config), "file": ingredient.label}
    write_state(to, state, metadata)
    return Ingredient(ingredient.label, to, metadata, own=True)


def named_as_in(model: Module, state: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """Tensors by the names of `model`, a stockpot network around a user's module.

    A tied tensor may stand under any of its names: safetensors' `save_model` writes one of them.

    Raises
    ------
    Conflict
        A tensor is missing, is not part of the model, or has another shape.
    """
    expected = model.state_dict(keep_vars=True)
    prefix = "module." if all(name.startswith("module.") for name in expected) else ""
    if any(name in expected for name in state):
        prefix = ""  # it has stockpot's own names
    given = {f"{prefix}{name}": values for name, values in state.items()}
    ties: dict[tuple[int, Any], list[str]] = {}
    for name, values in expected.items():
        ties.setdefault((values.data_ptr() or id(values), tuple(values.shape)), []).append(name)
    for names in ties.values():
        if there := [name for name in names if name in given]:
            given |= {name: given[there[0]] for name in names if name not in given}
    for name in sorted(expected.keys() ^ given.keys()):
        has = "has no" if name in expected else "has a"
        raise Conflict(
            f"soup: {label} {has} tensor {name.removeprefix(prefix)}, "
            f"{'which' if name in expected else 'unlike'} the "
            f"model of the factory{' has' if name in expected else ''}",
            fix="name the factory and the [train] settings (--set train.hidden=...) the file was "
            "trained with",
        )
    for name, values in expected.items():
        if given[name].shape != values.shape:
            raise Conflict(
                f"soup: {label}: tensor {name.removeprefix(prefix)}: expected shape "
                f"{tuple(values.shape)} as in the "
                f"factory's model, found {tuple(given[name].shape)}",
                fix="name the [train] settings (--set train.hidden=...) the file was trained with",
            )
    return given
