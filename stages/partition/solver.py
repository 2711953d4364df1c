"""METIS and KaMinPar as a function of arrays: a crash of a library is an error of one line, and no
process is left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import StockpotError
from stockpot.stages.package import child_environment
from stockpot.stages.partition.parhip import write_parhip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CHILD", "solve"]

CHILD = (sys.executable, "-m", "stockpot.stages.partition.child")
_NAMES = {"metis": "METIS", "kaminpar": "KaMinPar"}
TURN_S = 0.5


def solve(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    parts: int,
    *,
    seed: int,
    folder: Path,
    method: str = "metis",
    threads: int = 1,
    node_weight: NDArray[np.int64] | None = None,
    edge_weight: NDArray[np.int64] | None = None,
    shares: Sequence[float] | None = None,
    child: Sequence[str] = CHILD,
) -> NDArray[np.int32]:
    """K-way partition of a symmetric graph.

    Graphs with nothing to decide about never reach the library (METIS ends the process on some of
    them): one part, at least as many parts as nodes, no edges. O(E) time.

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E] CSR, symmetric, no self-loops, no duplicates; N >= 1
    parts : at least 1
    seed : of the library
    folder : folder for the files shared with the child
    method : "metis" (one thread, the same parts for a seed on one machine) or "kaminpar" (not with
        several threads)
    threads : of KaMinPar
    node_weight, edge_weight : i8[N], i8[E], METIS only; None: all 1
    shares : of the nodes' weight in each part, METIS only; None: equal ones
    child : command that is given `folder` and the id of this process

    Returns
    -------
    i4[N], in [0, parts); parts may be empty

    Raises
    ------
    StockpotError
        The child failed; names its exit status or signal.
    """
    nodes = len(indptr) - 1
    if parts >= nodes:
        return np.arange(nodes, dtype=np.int32)
    if parts == 1 or len(indices) == 0:
        return (np.arange(nodes, dtype=np.int64) * parts // nodes).astype(np.int32)
    for name in ("part", "node_weight", "edge_weight"):
        (folder / f"{name}.npy").unlink(missing_ok=True)
    if method == "kaminpar":
        write_parhip(folder / "graph.parhip", indptr, indices)
    else:
        arrays: dict[str, NDArray[Any] | None] = {"indptr": indptr, "indices": indices}
        arrays |= {"node_weight": node_weight, "edge_weight": edge_weight}
        for name, values in arrays.items():
            if values is not None:
                np.save(folder / f"{name}.npy", values)
    request = {"method": method, "parts": parts, "seed": seed, "threads": threads}
    (folder / "request.json").write_text(
        json.dumps({**request, "shares": None if shares is None else list(shares)})
    )
    code, said = _run([*child, str(folder), str(os.getpid())], child_environment())
    if code != 0 or not (folder / "part.npy").exists():
        raise StockpotError(
            f"partition: {_NAMES[method]} failed on {nodes} nodes, {len(indices)} directed edges, "
            f"{parts} parts: "
            f"{_ending(code)}{_last_line(said)}",
            fix="try another number of parts or another method, for example --set "
            "partition.parts=64",
        )
    return np.load(folder / "part.npy")


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Exit status and stderr of a child, which does not outlive this call whatever ends it.

    It is waited for in short turns: an exception sent to this thread (the task is no longer wanted)
    arrives only between two steps of Python.
    """
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=null, stdout=null, stderr=pipe) as child:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    said = child.communicate(timeout=TURN_S)[1]
                    return child.returncode, said
        finally:
            child.kill()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()})" if lines else ""
