"""Devices that models are trained and asked on; described without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stockpot.stages.errors import BadInput

__all__ = ["gpus_here", "resolved_device"]


def resolved_device(asked: str, ranks: int = 1) -> str:
    """`train.device` as "cpu", "cuda" or "cuda:N". Several ranks take a GPU each, of those of their
    machine.

    Raises
    ------
    BadInput
        There is no such device, or no CUDA here.
    """
    launched = os.environ.get("WORLD_SIZE") == str(ranks)  # else all ranks run on this machine
    local = int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) if launched else ranks
    if asked == "auto":
        return "cuda" if _gpus() >= local else "cpu"
    kind, _, number = asked.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdigit())):
        raise BadInput(
            f"train.device: expected auto, cpu, cuda or cuda:N, found {asked!r}",
            fix="--set train.device=auto",
        )
    if number and ranks > 1:
        raise BadInput(
            f"train.device: {ranks} ranks take a GPU each, expected cuda, found {asked!r}",
            fix="--set train.device=cuda",
        )
    if kind == "cuda" and not _gpus():
        raise BadInput(
            f"train.device: {asked!r}: this machine or its torch has no CUDA",
            fix="--set train.device=cpu",
        )
    if kind == "cuda" and _gpus() < local:
        raise BadInput(
            f"train.device: expected a GPU for each of {local} ranks on this machine, found "
            f"{_gpus()}",
            fix=f"--set train.ranks={_gpus()}, or --set train.device=cpu",
        )
    return asked


def gpus_here() -> dict[str, Any]:
    """GPUs of this machine, `present`, and whether its torch is built for them, `usable`; torch is
    not imported.
    """
    import importlib.util

    found = importlib.util.find_spec("torch")
    folders = list(found.submodule_search_locations or []) if found is not None else []
    built = any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders)
    present = len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])
    return {"present": present, "usable": built}


def _gpus() -> int:
    """GPUs that torch can use here."""
    here = gpus_here()
    return int(here["present"]) if here["usable"] else 0
