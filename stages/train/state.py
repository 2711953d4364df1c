"""A file of tensors is whole and unaltered or it is refused: written atomically, with a digest of
all it holds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import Corrupt
from stockpot.stages.places import unread
from stockpot.stages.replace import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["read_metadata", "read_state", "state_digest", "write_state"]

_METADATA, _DIGEST = "stockpot", "digest"


def state_digest(state: Mapping[str, Tensor], text: str = "") -> str:
    """Digest (blake3, 32 hex characters) of `text` and of names, shapes, types and values of
    tensors, in name order.
    """
    import torch
    from blake3 import blake3

    digest = blake3(text.encode())
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        digest.update(f";{name}:{values.dtype}:{tuple(values.shape)};".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest(length=16)


def write_state(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file: temporary name, fsync, rename.

    Equal contents give equal bytes: one metadata document with sorted keys, tensors in name order.
    """
    from safetensors.torch import save

    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    held: set[int] = set()
    for (
        name,
        values,
    ) in tensors.items():  # tied tensors are written under every name: the format knows no sharing
        place = values.untyped_storage().data_ptr()
        if place in held:
            tensors[name] = values.clone()
        held.add(place)
    text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))
    document = json.dumps({_DIGEST: state_digest(tensors, text), _METADATA: text}, sort_keys=True)
    data = save(tensors, {_METADATA: document})
    with replacing(path) as partial:
        partial.write_bytes(data)


def _text(path: Path, file: Any) -> tuple[str, str]:
    try:
        document = json.loads(file.metadata()[_METADATA])
        return str(document[_METADATA]), str(document[_DIGEST])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Corrupt(
            f"{path}: expected a file with stockpot's metadata, found none ({error!r})"
        ) from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file of `write_state`.

    Raises
    ------
    Corrupt
        The file is truncated or altered, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text, expected = _text(path, file)
            # The open file is no mapping: it cannot be iterated.
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Corrupt(f"{path}: expected a safetensors file, found {error}") from error
    except OSError as error:
        raise unread(path, error, lambda why: Corrupt(f"{path}: cannot be read: {why}")) from error
    found = state_digest(state, text)
    if found != expected:
        raise Corrupt(f"{path}: its content has digest {found}, expected {expected}")
    return state, json.loads(text)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone; tensors are neither read nor checked."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads(_text(path, file)[0])
            return metadata
    except SafetensorError as error:
        raise Corrupt(f"{path}: expected a safetensors file, found {error}") from error
    except OSError as error:
        raise unread(path, error, lambda why: Corrupt(f"{path}: cannot be read: {why}")) from error
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: expected metadata as JSON, found {error}") from error
