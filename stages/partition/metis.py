"""METIS as a function of arrays: a crash of the library is an error of one line, and no process is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.errors import StockpotError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["CHILD", "metis"]

CHILD = (sys.executable, "-m", "stages.partition.metis_child")
_ROOT = Path(__file__).resolve().parents[2]


def metis(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    parts: int,
    *,
    seed: int,
    folder: Path,
    child: Sequence[str] = CHILD,
) -> NDArray[np.int32]:
    """K-way partition of a symmetric graph with unit weights.

    Graphs METIS has nothing to decide about never reach it (it ends the process on some of them): one part, at least
    as many parts as nodes, no edges. O(E) time.

    Parameters
    ----------
    indptr, indices : i8[N + 1], i4[E] CSR, symmetric, no self-loops, no duplicates; N >= 1
    parts : at least 1
    seed : of METIS
    folder : empty folder for the files shared with the child
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
    (folder / "part.npy").unlink(missing_ok=True)
    np.save(folder / "indptr.npy", indptr)
    np.save(folder / "indices.npy", indices)
    (folder / "request.json").write_text(json.dumps({"parts": parts, "seed": seed}))
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*child, str(folder), str(os.getpid())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0 or not (folder / "part.npy").exists():
        raise StockpotError(
            f"partition: METIS failed on {nodes} nodes, {len(indices)} directed edges, {parts} parts: "
            f"{_ending(done.returncode)}{_last_line(done.stderr)}",
            fix="try another number of parts, for example --set partition.parts=64",
        )
    return np.load(folder / "part.npy")


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
