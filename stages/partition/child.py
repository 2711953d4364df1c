"""METIS or KaMinPar in a process of its own, which dies with its parent.

Run as `python -m stockpot.stages.partition.child FOLDER PARENT`. Protocol: FOLDER holds
request.json {method, parts, seed, threads, shares} and the symmetric graph without self-loops: for
METIS indptr.npy (i8[N + 1]), indices.npy (i4[E]) and, where weighted, node_weight.npy (i8[N]) and
edge_weight.npy (i8[E]); for KaMinPar graph.parhip (see `stages.partition.parhip`). The child writes
part.npy (i4[N]) by rename and exits 0. Anything else is a failure.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_IMBALANCE = 0.03  # METIS's own default


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies; end at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _metis(folder: Path, request: Mapping[str, Any]) -> Any:
    import pymetis

    def optional(name: str) -> Any:
        path = folder / f"{name}.npy"
        return np.load(path) if path.exists() else None

    graph = pymetis.CSRAdjacency(np.load(folder / "indptr.npy"), np.load(folder / "indices.npy"))
    _, part = pymetis.part_graph(
        request["parts"],
        graph,
        vweights=optional("node_weight"),
        eweights=optional("edge_weight"),
        tpwgts=request["shares"],
        options=pymetis.Options(seed=request["seed"]),
        warn_on_copies=False,
    )
    return part


def _kaminpar(folder: Path, request: Mapping[str, Any]) -> Any:
    import kaminpar

    kaminpar.reseed(request["seed"])
    solver = kaminpar.KaMinPar(request["threads"], kaminpar.default_context())
    graph = kaminpar.load_graph(str(folder / "graph.parhip"), kaminpar.GraphFileFormat.PARHIP)
    return solver.compute_partition(graph, k=request["parts"], eps=_IMBALANCE)


def main(folder: Path, parent: int) -> None:
    """Partition the graph in `folder`."""
    die_with(parent)
    request = json.loads((folder / "request.json").read_text())
    solve = {"metis": _metis, "kaminpar": _kaminpar}[request["method"]]
    part = np.asarray(solve(folder, request), np.int32)
    with open(folder / "part.npy.new", "wb") as file:
        np.save(file, part)
    (folder / "part.npy.new").replace(folder / "part.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
