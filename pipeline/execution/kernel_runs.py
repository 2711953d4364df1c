"""Every kernel is compiled with the types that runs call it with: by small runs of every kind.

A kernel is compiled when it is first called, for the types that it is called with, and kept on disk
(`stockpot.stages.kernels.compiled`). What these types are is known only to the stages; so tiny
graphs go through the real stages, in a store that is thrown away.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput
from stockpot.store.attempt import UNLIMITED_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["KINDS", "Kind", "Warmed", "run_kind", "warm", "warmed", "write_graphs"]

_NODES, _CLASSES, _DEGREE, _FEATURES = 400, 4, 6, 16
_BASE = {
    "batches.outputs": "20",
    "train.epochs": "1",
    "train.hidden": "16",
    "train.layers": "2",
    "train.ingredients": "1",
    "train.device": "cpu",
    "soup.method": "best",
}
_NJIT = re.compile(rb"^\s*@njit\(", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """A small run.

    Attributes
    ----------
    graph : name of one that `write_graphs` writes, or a source.
    sets : overrides of recipe keys, beside `_BASE`.
    targets : stages or artifacts that are built, with what they need; none: all.
    memory_bytes : of a task; as much as it wants where nothing is said.
    """

    graph: str = "plain"
    sets: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[str] = ()
    memory_bytes: int = UNLIMITED_BYTES


@dataclass(frozen=True)
class Warmed:
    """What is compiled.

    Attributes
    ----------
    folder : of the compiled kernels.
    kernels : functions that are compiled there, for at least one tuple of types.
    compiled : functions and types that this call compiled; 0 where nothing was missing.
    seconds : that it took.
    """

    folder: Path
    kernels: int
    compiled: int
    seconds: float


def write_graphs(folder: Path) -> None:
    """Write the graphs of all kinds to `folder`: NAME.npz, seeded."""
    import numpy as np

    rng = np.random.default_rng(0)
    y = rng.integers(0, _CLASSES, _NODES)
    edges = rng.integers(0, _NODES, (2, _NODES * _DEGREE // 2), dtype=np.int32)
    graph: dict[str, Any] = {"edge_index": edges, "num_nodes": np.int64(_NODES), "y": y}
    x = rng.normal(size=(_NODES, _FEATURES)).astype(np.float32)
    ones = rng.random((_NODES, 4 * _FEATURES)) < 0.1
    weight = rng.random((edges.shape[1],), np.float32) + np.float32(0.5)
    np.savez(folder / "plain.npz", **graph, x=x)
    group = np.arange(_NODES) // 10
    together = np.stack(np.nonzero(np.triu(group[:, None] == group, 1))).astype(np.int32)
    np.savez(folder / "groups.npz", **{**graph, "edge_index": np.c_[edges, together]}, x=x)
    np.savez(folder / "weighted.npz", **graph, x=x, edge_weight=weight)
    np.savez(folder / "binary.npz", **graph, x=ones.astype(np.float32))
    rare = rng.random((_NODES, 512)) < 0.01
    sparse: dict[str, Any] = {
        "x_data": np.ones(int(rare.sum()), np.float32),
        "x_indices": np.nonzero(rare)[1].astype(np.int32),
        "x_indptr": np.append(0, np.cumsum(rare.sum(1))).astype(np.int64),
        "x_shape": np.array(rare.shape),
    }
    np.savez(folder / "sparse.npz", **graph, **sparse)
    values = rng.random(sparse["x_data"].shape, np.float32)
    np.savez(folder / "values.npz", **graph, **{**sparse, "x_data": values})


_LOSSY = {"features.tier_share": "0.1", "features.tier_bytes": "4"}
_OVERLAP = {"order.method": "overlap", "features.layout": "gather", "order.cache": "390"}
_SAMPLED = {"batches.fanouts": "[3, 3]", "batches.outputs": "50"}
KINDS: Mapping[str, Kind] = {
    "recipe": Kind(
        "sparse",  # as data/wordnet.toml
        {
            "features.reduce": "8",
            "features.propagate": "2",
            "batches.top_k": "4",
            "batches.mix": "8",
            "train.model": "sage",
            "train.dropout": "0.2",
            "train.warmup": "1",
            "train.epochs": "2",
            "train.ingredients": "2",
            "soup.method": "uniform",
            "infer.top_k": "8",
        },
    ),
    "shared sums": Kind("groups", {"train.model": "gin", "hag.enabled": "always"}),
    "plain": Kind(sets={"train.per_step": "2", "infer.top_k": '"auto"'}),
    "weighted": Kind("weighted", {"train.per_step": "2", "graph.mass": "row"}),
    "directed": Kind(
        "weighted",
        {"graph.undirected": "false", "batches.method": "batch", "train.model": "sage"},
    ),
    "attention": Kind(sets={"train.model": "gat", "batches.method": "cluster"}),
    "sequences": Kind(
        sets={"train.model": "sage-lstm", "order.method": "sample"}, targets=["soup"]
    ),
    "codes": Kind(  # rows so wide, and steps so large, that a first layer reads codes
        "binary",
        {
            "features.codec": "pq2",
            "batches.method": "random",
            "batches.outputs": "100",
            "train.per_step": "2",
            "train.hidden": "64",
        },
    ),
    "rows": Kind(
        sets={
            "train.model": "sign",
            "features.propagate": "2",
            "batches.method": "propagate",
            "features.codec": "sq4",
        }
    ),
    "rotated": Kind(sets={"features.codec": "opq3", **_LOSSY}, targets=["pack"]),
    "residual": Kind(sets={"features.codec": "rq4", **_LOSSY}, targets=["pack"]),
    "halves": Kind(sets={"features.codec": "fp16"}, targets=["quantize"]),
    "bifeat": Kind(sets={"features.codec": "bifeat-sq8"}, targets=["quantize"]),
    "bifeat-vq": Kind(sets={"features.codec": "bifeat-vq4-16"}, targets=["quantize"]),
    "binary": Kind("binary"),
    "sparse": Kind("sparse"),
    "values": Kind("values"),
    "judged": Kind(  # so few outputs that the judge makes records and trains nothing
        "synthetic:communities?nodes=2000&edges=10000&features=8",
        {"features.lossless_up_to": "0"},
        ["judge"],
    ),
    "generated": Kind(
        "synthetic:communities?nodes=4000&edges=20000&features=8",
        {"partition.method": "stream", "partition.parts": "64", "batches.outputs": "100"},
        ["pack"],
    ),
    "large": Kind("plain", targets=["ingest"], memory_bytes=1),
    "overlap": Kind(sets=_OVERLAP),
    "labor": Kind(
        sets={
            "batches.method": "labor",
            "batches.importance_sampling": "1",
            "batches.kappa": "2",
            "batches.rounds": "2",
            "batches.seeds": "community",
            "train.per_step": "2",
            **_SAMPLED,
            **_OVERLAP,
        }
    ),
    "dependent": Kind(
        sets={"batches.method": "labor", "batches.layer_dependency": "true", **_SAMPLED}
    ),
    "neighbor": Kind("weighted", {"batches.method": "neighbor", **_SAMPLED}),
    "student": Kind(sets={"features.propagate": "1", "infer.by": "student", "student.epochs": "1"}),
    "cooperative": Kind(
        sets={"train.ranks": "2", "train.exchange": "cooperative"}, targets=["train"]
    ),
    "independent": Kind(
        sets={"train.ranks": "2", "train.exchange": "independent"}, targets=["train"]
    ),
}
"""What is run, the first one alone; every key that chooses between kernels has its values here."""


def run_kind(name: str, folder: Path) -> None:
    """Build everything of a kind in `folder/NAME`, whose graphs are in `folder`.

    Raises
    ------
    StockpotError
        The first error of a stage.
    """
    from stockpot.execution.in_process import build_here
    from stockpot.planning.plan import Planner
    from stockpot.planning.recipe import from_tables
    from stockpot.store.digests import StatCache
    from stockpot.store.fingerprints import Seen
    from stockpot.store.store import Store

    kind, own = KINDS[name], folder / name
    own.mkdir()
    source = kind.graph if ":" in kind.graph else f"npz:{folder / kind.graph}.npz"
    sets = {"dataset.source": json.dumps(source), **_BASE, **kind.sets}
    recipe = from_tables(name, {}, [f"{key}={value}" for key, value in sets.items()])
    store = Store(own / "store")
    planner = Planner(recipe, store, StatCache(own / "stat-cache.json"), Seen(own / "seen.json"))
    build_here(planner, store, kind.targets, memory_bytes=kind.memory_bytes)


def warmed() -> Warmed | None:
    """What a call of `warm` left, where all of it is still there and of these sources; else
    None.
    """
    folder = _kept_folder()
    try:
        document = json.loads(_stamp(folder).read_text())
        there = all((folder / name).is_file() for name in document["files"])
        return Warmed(folder, int(document["kernels"]), 0, 0.0) if there else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warm(processes: int, say: Callable[[str], None], kinds: Sequence[str] = ()) -> Warmed:
    """Compile every kernel that is not yet, in so many processes; or those of some kinds.

    Some five minutes of CPU where nothing is compiled (measured on a crowded machine); under a
    second where everything is.

    Raises
    ------
    BadInput
        There is no folder in which compiled kernels could stay, or no such kind of run.
    """
    for name in kinds:
        if name not in KINDS:
            raise BadInput(
                f"warm: expected kinds of run among {', '.join(KINDS)}, found {name}",
                fix="stockpot warm, for all of them",
            )
    if (found := warmed()) is not None:
        return found
    folder, started = _kept_folder(), time.perf_counter()
    before = _files(folder, ".nbc")
    with tempfile.TemporaryDirectory(prefix="stockpot-warm-") as scratch:
        write_graphs(Path(scratch))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _beginning, (os.getpid(),)) as pool:
            try:
                # What most kinds share is compiled by the first alone, so that no two compile it.
                names = list(kinds or KINDS)
                for wave in (names[:1], names[1:]):
                    for name, _ in zip(wave, pool.map(_run, wave, repeat(scratch)), strict=True):
                        count = len(_files(folder, ".nbc") - before)
                        say(f"{name}: {count} compiled, {time.perf_counter() - started:.0f} s")
            except BaseException:
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    files = _files(folder, ".nbi") | _files(folder, ".nbc")
    kernels = sum(name.endswith(".nbi") for name in files)
    if not kinds:
        _write_stamp(folder, {"kernels": kernels, "files": sorted(files)})
    compiled = len(_files(folder, ".nbc") - before)
    return Warmed(folder, kernels, compiled, time.perf_counter() - started)


def _run(name: str, folder: str) -> None:
    # Every task collects garbage before it begins: what earlier kinds imported need not be walked.
    gc.collect()
    gc.freeze()
    run_kind(name, Path(folder))


def _kept_folder() -> Path:
    from stockpot.stages.kernels.compiled import cache_root

    folder = cache_root()
    if folder.is_relative_to(tempfile.gettempdir()) and folder.name.startswith("stockpot-kernels-"):
        raise BadInput(
            f"warm: no folder can be written in which kernels would stay, found {folder} alone, "
            f"which lives as long as this process",
            fix="NUMBA_CACHE_DIR=FOLDER stockpot warm",
        )
    return folder


def _kernel_files() -> Iterable[Path]:
    from stockpot.stages.package import source_files

    return [path for path in source_files().values() if _NJIT.search(path.read_bytes())]


def _stamp(folder: Path) -> Path:
    """File that says what was compiled for these sources, this Python, numba, and CPU.

    Types come from sources of all kinds; numba takes a kernel's code for old where its file has
    another time.
    """
    from stockpot.stages.kernels.compiled import cache_folder
    from stockpot.stages.package import source_files

    whole = hashlib.blake2b(str(sys.implementation.cache_tag).encode(), digest_size=8)
    for path in _kernel_files():
        whole.update(f"\0{cache_folder(path).name}\0{path.stat().st_mtime_ns}".encode())
    for name, path in source_files().items():
        whole.update(f"\0{name}\0".encode() + path.read_bytes())
    return folder / f"warm-{whole.hexdigest()}.json"


def _write_stamp(folder: Path, document: Mapping[str, Any]) -> None:
    path = _stamp(folder)
    for old in folder.glob("warm-*.json"):
        old.unlink(missing_ok=True)
    own = path.with_suffix(f".{os.getpid()}")
    own.write_text(json.dumps(document))
    own.replace(path)


def _files(folder: Path, ending: str) -> set[str]:
    """Files of kernels of these sources, by their path in `folder`."""
    from stockpot.stages.kernels.compiled import cache_folder

    return {
        str(path.relative_to(folder))
        for file in _kernel_files()
        for path in cache_folder(file).rglob(f"*{ending}")
    }


def _beginning(parent: int) -> None:
    """Let a process of the pool die with the command, and leave Ctrl-C to it."""
    from stockpot.stages.partition.child import die_with

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    import_module("torch._dynamo")  # what an optimiser of torch imports when it is made
