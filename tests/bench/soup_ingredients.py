"""Ingredients that the benchmark of souping works on: short trainings from one warm-up, kept under
runs/bench/soup/."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

__all__ = ["FOLDER", "Case", "prepared"]

SHARED = Path("../shared/data")
SOURCES = {
    "wordnet": ("wordnet", 128),
    "computers": (f"npz:{SHARED / 'amazon_computers.npz'}", 128),
    "physics": (f"npz:{SHARED / 'coauthor_physics.npz'}", 128),
}
FOLDER = Path("runs/bench/soup")
JOBS = 2
"""Ingredients trained at a time."""
NODES = ("pack:train", "pack:valid", "pack:test", "order")
_NOT_TRAINING = ("data", "count", "valid", "train", "top_k", "noisy")


@dataclass(frozen=True)
class Case:
    """Ingredients of one model on one data set.

    Attributes
    ----------
    valid, train : shares of the nodes, drawn anew; 0.25 and 0.5 is WordNet's own split.
    warmup, epochs : shared epochs, and those of each ingredient after them.
    noisy : ingredients are the warm-up with noise of 1 %: good for seconds alone, and quickly made.
    """

    data: str
    count: int = 10
    model: str = "gcn"
    valid: float = 0.25
    train: float = 0.5
    top_k: int = 32
    hidden: int = 64
    warmup: int = 6
    epochs: int = 3
    lr: float = 1e-2
    dropout: float = 0.2
    schedule: str = "constant"
    vary: float = 2.0
    ema: float = 0.0
    seed: int = 0
    noisy: bool = False

    @property
    def name(self) -> str:
        return f"{self.data} {self.model} N={self.count} valid {100 * self.valid:g} %"

    @property
    def packs(self) -> str:
        """Name of the run whose records they are trained and souped on."""
        return f"{self.data}-{self.valid:g}-{self.train:g}-{self.top_k}"

    @property
    def trained(self) -> str:
        """Name of the folder of its models: what was trained with, where it is not the default."""
        own = [
            f
            for f in fields(self)
            if f.name not in _NOT_TRAINING and getattr(self, f.name) != f.default
        ]
        return (
            "-".join([self.packs, *(f"{f.name}{getattr(self, f.name)}" for f in own)])
            + "-noisy" * self.noisy
        )

    def settings(self) -> dict[str, object]:
        """Of the recipe's `[train]`."""
        same = ("model", "hidden", "warmup", "lr", "dropout", "schedule", "vary", "ema", "seed")
        own = {f"train.{name}": getattr(self, name) for name in same}
        return own | {"train.epochs": self.warmup + self.epochs, "train.device": "cpu"}


def prepared(case: Case) -> tuple[Path, list[Path]]:
    """(run folder with the packed splits, model files); what is not there is built, `JOBS`
    ingredients at a time."""
    run = _run(case)
    root = FOLDER / "models" / case.trained
    if case.warmup and not (root / "start" / "start.safetensors").exists():
        _stage(case, run, root, None)
    paths = [root / f"{i}" / "model.safetensors" for i in range(case.count)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if case.noisy:
        for i in missing:
            _with_noise(root / "start" / "model.safetensors", paths[i], i)
    elif missing:
        with ProcessPoolExecutor(min(JOBS, len(missing)), get_context("spawn")) as pool:
            list(pool.map(partial(_stage, case, run, root), missing))
    return run, paths


def _stage(case: Case, run: Path, root: Path, index: int | None) -> None:
    """Train the ingredient of that number, or where None the warm-up, on one thread."""
    import torch

    from stockpot.locate import artifact_of
    from stockpot.planning.recipe import KEYS
    from stockpot.stages.train.stage import STAGE
    from stockpot.stages.warmup import STAGE as WARMUP
    from tests.memory import MemoryReader, run_stage

    inputs = {
        role: artifact_of(run, node)
        for role, node in (("train", "pack:train"), ("valid", "pack:valid"), ("order", "order"))
    }
    facts = {role: reader.facts for role, reader in inputs.items()}
    values = {**{key: found.default for key, found in KEYS.items()}, **case.settings()}
    torch.set_num_threads(1)
    stage = WARMUP if index is None else STAGE
    params = stage.resolve({k: values[k] for k in stage.reads} | {"index": index or 0}, facts)
    if index is not None and case.warmup:
        inputs["start"] = MemoryReader(root=root / "start")
    run_stage(stage, params, inputs, root / ("start" if index is None else f"{index}"))


def _run(case: Case) -> Path:
    """Folder of a run that packed the splits."""
    source, reduce = SOURCES[case.data]
    if case.data == "wordnet" and case.valid != 0.25:
        source = f"npz:{_without_split(Path('data/wordnet.npz'))}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    recipe, run = FOLDER / f"{case.packs}.toml", FOLDER / case.packs
    recipe.write_text(
        f'[dataset]\nsource = "{source}"\nsplit = {{ train = {case.train}, valid = {case.valid} '
        f"}}\n"
        f'[features]\nreduce = {reduce}\ncodec = "fp32"\n[batches]\ntop_k = {case.top_k}\n'
    )
    if not (run / "run.json").exists() or "pack:test" not in (run / "run.json").read_text():
        command = [sys.executable, "-m", "stockpot.cli", "run", str(recipe), *NODES]
        subprocess.run(
            [*command, "--store", str(FOLDER / "store"), "--runs", str(FOLDER)], check=True
        )
    return run


def _without_split(path: Path) -> Path:
    """A copy of a graph whose split is to be drawn."""
    out = FOLDER / f"{path.stem}-no-split.npz"
    if not out.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with np.load(path) as z:
            np.savez_compressed(out, **{k: z[k] for k in z if not k.endswith(("_idx", "_masks"))})
    return out


def _with_noise(start: Path, path: Path, seed: int) -> None:
    """A model file: the warm-up's weights, each tensor with noise of 1 % of its spread."""
    import torch

    from stockpot.stages.train.state import read_state, write_state

    state, metadata = read_state(start)
    draw = torch.Generator().manual_seed(seed)
    noised = {
        name: v + 0.01 * float(v.std()) * torch.randn(v.shape, generator=draw)
        if v.is_floating_point() and v.numel() > 1
        else v
        for name, v in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_state(path, noised, metadata)
