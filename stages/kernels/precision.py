"""Dense products of a step in bfloat16 where asked for; sums over nodes, norms, losses and weights
stay float32.

torch's autocast chooses what is a dense product. Evaluation is always float32, so accuracies of all
runs compare.
"""

from __future__ import annotations

import statistics
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import torch
from torch import Tensor

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bf16_flags", "checked", "emulated_cost", "in_float32", "products"]

P = ParamSpec("P")
_TURNS = 9


def in_float32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorate a kernel that autocast knows nothing of: inside it, it is off and bfloat16 arguments
    are float32.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        kinds = {a.device.type for a in args if isinstance(a, Tensor)}
        if not any(torch.is_autocast_enabled(kind) for kind in kinds):
            return function(*args, **kwargs)
        wide = [
            a.float() if isinstance(a, Tensor) and a.dtype == torch.bfloat16 else a for a in args
        ]
        with torch.autocast(next(iter(kinds)), enabled=False):
            return function(*wide, **kwargs)  # type: ignore[arg-type]

    return called


def products(precision: str, device: torch.device) -> torch.autocast:
    """Context of a forward pass: dense products in `precision`, "fp32" or "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def checked(precision: str, device: str) -> list[str]:
    """What is to be said about `precision` on `device`; where it is emulated, with what that costs.

    Raises
    ------
    BadInput
        The GPU has no bfloat16.
    """
    if precision != "bf16":
        return []
    if device.startswith("cuda"):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            name = torch.cuda.get_device_name(device)
            raise BadInput(f"train.precision: {name} has no bf16", fix="--set train.precision=fp32")
        return []
    if bf16_flags():
        return []
    word = (
        "this CPU names no bf16 instructions and emulates them: a dense product of "
        f"train.precision=bf16 takes {emulated_cost():.1f} times as long as one of fp32 here; "
        "--set train.precision=fp32"
    )
    return [word]


def bf16_flags() -> list[str]:
    """What this CPU names of bfloat16 instructions, sorted; none: it emulates them."""
    cpu = Path("/proc/cpuinfo")
    flags = set(cpu.read_text().split()) if cpu.exists() else set()
    return sorted({"avx512_bf16", "amx_bf16", "bf16"} & flags)


def emulated_cost() -> float:
    """Times as long as in float32 that a dense product takes in bfloat16 on this CPU, measured:
    medians of some milliseconds, in turns.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    sides = {
        kind: (torch.ones(512, 256, dtype=kind), torch.ones(256, 256, dtype=kind))
        for kind in seconds
    }
    for _ in range(_TURNS):
        for kind, (rows, weight) in sides.items():
            start = time.thread_time()
            rows @ weight
            seconds[kind].append(time.thread_time() - start)
    narrow, wide = (statistics.median(seconds[k]) for k in (torch.bfloat16, torch.float32))
    return narrow / wide
