"""METIS in a process of its own, which dies with its parent: `python -m stages.partition.metis_child FOLDER PARENT`.

Protocol: FOLDER holds indptr.npy (i8[N + 1]), indices.npy (i4[E], symmetric, no self-loops) and request.json
{parts, seed}; the child writes part.npy (i4[N]) by rename and exits 0. Anything else is a failure.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies; end at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main(folder: Path, parent: int) -> None:
    """Partition the graph in `folder`."""
    die_with(parent)
    import pymetis

    request = json.loads((folder / "request.json").read_text())
    indptr, indices = np.load(folder / "indptr.npy"), np.load(folder / "indices.npy")
    graph = pymetis.CSRAdjacency(indptr, indices)
    options = pymetis.Options(seed=request["seed"])
    _, part = pymetis.part_graph(request["parts"], graph, options=options, warn_on_copies=False)
    with open(folder / "part.npy.new", "wb") as file:
        np.save(file, np.asarray(part, np.int32))
    (folder / "part.npy.new").replace(folder / "part.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
