"""Graphs of `make bench-train` and `make bench-inference`: their records built by one child process
a recipe, and what a peer reads of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stockpot.locate import artifact_of
from stockpot.planning.recipe import load
from stockpot.stages.codec.node_rows import NodeRows
from stockpot.stages.train.stage import STAGE
from stockpot.stages.train.train_params import model_config

SHARED = Path("../shared/data")
STEPS, FEWEST, MOST = 64, 64, 1024
"""Records of an epoch, and the fewest and the most outputs of one: both sides' seeds a step."""
LARGEST_VALID = 0.25
"""Validation is as large as training, and this share at most: so many labels are there."""


@dataclass(frozen=True)
class Graph:
    """A graph, and how both sides train on it.

    Attributes
    ----------
    path : its `.npz`.
    records : recipe overrides of our records; `outputs` says how many outputs one has.
    propagated : further ones where features are propagated, by validation.
    fanouts : those that the peer chooses from, of every layer.
    epochs : of a training, by percent of nodes that have labels.
    """

    name: str
    path: Path
    layers: int
    dropout: float
    records: tuple[str, ...]
    fanouts: tuple[int, ...]
    epochs: dict[int, int]
    propagated: tuple[str, ...] = ()
    reduce: int = 128


SMALL = ("batches.top_k=8", "batches.mix=512")
GRAPHS = {
    graph.name: graph
    for graph in (
        Graph(
            "wordnet", Path("data/wordnet.npz"), 3, 0.2, SMALL, (3, 5, 10), {50: 8, 5: 24, 1: 40},
            ("batches.top_k=4",),
        ),
        Graph(
            "physics", SHARED / "coauthor_physics.npz", 2, 0.5,
            ("batches.top_k=4", "batches.mix=512"), (1, 3, 10), {50: 10, 5: 24, 1: 40},
        ),
        Graph(
            "computers", SHARED / "amazon_computers.npz", 2, 0.5,
            ("batches.top_k=32",), (3, 10, 25),
            {50: 20, 5: 40, 1: 60},
        ),
        Graph(
            "debian", SHARED / "debian12_packages.npz", 3, 0.2, SMALL, (3, 5, 10),
            {50: 10, 5: 24, 1: 40},
        ),
    )
}  # fmt: skip


def outputs(graph: Graph, labels: int) -> int:
    """Most outputs of a training record: what both sides take a step."""
    with np.load(graph.path) as z:
        labelled = int((z["y"] >= 0).sum())
    return max(FEWEST, min(MOST, -(-labelled * labels // (100 * STEPS))))


def without_split(path: Path, folder: Path) -> Path:
    """The same graph without published splits, so that one of any size can be drawn."""
    out = folder / path.name
    if not out.exists():
        with np.load(path) as z:
            kept = {
                name: z[name]
                for name in z.files
                if not name.startswith(("train_", "valid_", "test_"))
            }
        np.savez(out, **kept)
    return out


def child(module: str, *words: str, path: str = "") -> list[str]:
    """Lines of a Python module that runs with one thread in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(p for p in (env.get("PYTHONPATH", ""), path) if p)
    command = [sys.executable, "-W", "ignore", "-m", module, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module}: exit status {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Built:
    """Records of one recipe.

    Attributes
    ----------
    run : folder of the run.
    seconds : CPU seconds of all stages after the graph is ingested and split, kernels compiled.
    config : of the model that the recipe trains.
    train : resolved parameters of its training, and `batch`, the mean outputs of a record.
    sets : overrides of the recipe.
    digest : of the training records, so that nothing made from others is taken for theirs.
    """

    run: Path
    seconds: float
    config: dict[str, Any]
    train: dict[str, Any]
    sets: list[str]
    digest: str


SYNTHETIC = "synthetic:communities?nodes=3000&edges=15000&classes=8"
"""A graph that only compiles kernels."""


def built(
    graph: Graph, labels: int, name: str, sets: list[str], folder: Path, *, twice: bool = True
) -> Built:
    """Build the records of a recipe that names the graph, its split, `features.reduce`, and `sets`.

    The seconds of a build are kept beside the run, since a second one finds it in the store.
    `twice`: kernels are compiled on the graph itself, else on a small one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / f"{graph.name}-{labels}-{name}.toml"
    valid = min(LARGEST_VALID, labels / 100)
    path = without_split(graph.path, folder).resolve()

    def text(source: str) -> str:
        return (
            f'[dataset]\nsource = "{source}"\n'
            f"split = {{ train = {labels / 100}, valid = {valid}, seed = 0 }}\n"
            f'[features]\nreduce = {graph.reduce}\ncodec = "fp32"\n'
        )

    recipe.write_text(text(f"npz:{path}"))
    run, noted = folder / recipe.stem, folder / f"{recipe.stem}.seconds.json"
    want = {"recipe": recipe.read_text(), "sets": sets}
    found = json.loads(noted.read_text()) if noted.exists() else {}
    if {key: found.get(key) for key in want} != want or not (run / "run.json").exists():
        job = folder / f"{recipe.stem}.job.json"
        asked = {"recipe": str(recipe), "sets": sets, "folder": str(folder)}
        if not twice:
            first = folder / "compiles.toml"
            first.write_text(text(f"{SYNTHETIC}&features={graph.reduce + 1}"))
            asked["first"] = str(first)
        job.write_text(json.dumps(asked))
        found = want | json.loads(child("tests.bench.training_build", str(job))[-1])
        noted.write_text(json.dumps(found))
        for path in _files(run, folder).values():
            path.unlink(missing_ok=True)
    return described(recipe, sets, run, found["seconds"])


def described(recipe: Path, sets: list[str], run: Path, seconds: float) -> Built:
    """What the recipe's records and training are, of a run that is built."""
    facts = {
        role: artifact_of(run, node).facts
        for role, node in (("train", "pack:train"), ("order", "order"))
    }
    artifacts = json.loads((run / "run.json").read_text())["artifacts"]
    if "sizing" in artifacts:
        facts["sizing"] = artifact_of(run, "sizing").facts
    values = load(recipe, sets).values()
    params = STAGE.resolve({key: values[key] for key in STAGE.reads} | {"index": 0}, facts)
    packed, digest = facts["train"], artifact_of(run, "pack:train").digest
    train = {name: getattr(params, name) for name in ("lr", "schedule", "epochs", "mass")}
    train["batch"] = -(-int(packed["outputs"]) // int(packed["records"]))
    return Built(run, seconds, model_config(params, packed), train, sets, digest)


def _files(run: Path, folder: Path) -> dict[str, Path]:
    return {"graph": folder / f"{run.name}.graph.npz", "features": folder / f"{run.name}.npy"}


def peer_files(run: Path, folder: Path) -> dict[str, str]:
    """Files that every side reads: graph, labels and split as one, the run's feature columns as
    another, those that stage `propagate` stored among them."""
    graph, split = artifact_of(run, "ingest"), artifact_of(run, "split")
    files = _files(run, folder)
    if not all(path.exists() for path in files.values()):
        arrays = {key: np.asarray(graph.array(key)) for key in ("indptr", "indices", "y")}
        lists = {key: np.asarray(split.array(key)) for key in ("train", "valid", "test")}
        np.savez(files["graph"], **arrays, **lists)
        np.save(files["features"], NodeRows(artifact_of(run, "quantize")).all())
    return {key: str(path) for key, path in files.items()}
