"""Stages with the names and roles of the real ones that only add numbers, and misbehave where a
control file says so.

Control files stand in the folder FAKE_STAGES names: `die-NAME`, `fail-NAME`, `corrupt-NAME` hold
how often to do it, `sleep-NAME` how long (less where the file is removed); NAME is STAGE, or
STAGE.INSTANCE ("train.0", "pack.valid"). `calls` gets a line per shard run.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stockpot.planning.registry import STAGES as REAL
from stockpot.stages.errors import BadInput
from stockpot.stages.stage import Cost, Shard, Stage

READS = {
    "ingest": ("graph.undirected", "features.reduce"),
    "split": ("dataset.split", "dataset.split_index"),
    "partition": ("partition.method", "partition.parts"),
    "sizing": ("batches.alpha",),
    "influence": (
        "batches.method",
        "batches.alpha",
        "batches.outputs",
        "infer.split",
        "infer.top_k",
    ),
    "order": ("order.method",),
    "judge": ("features.codec",),
    "codebook": ("features.codec",),
    "quantize": ("features.codec",),
    "hag": ("hag.capacity",),
    "pack": (),
    "train": ("train.model", "train.hidden", "train.epochs", "train.seed"),
    "soup": ("soup.method", "soup.holdout"),
    "infer": ("infer.full_graph",),
    "codeloss": (),
}
NOTHING = ("judge", "codeloss")
"""Stages that have nothing to build."""
ROLES = {
    "ingest": ("source",),
    "split": ("graph",),
    "partition": ("graph",),
    "sizing": ("graph", "split"),
    "influence": ("graph", "split", "partition", "nodes"),
    "order": ("records", "graph"),
    "judge": ("graph", "split"),
    "codebook": ("graph", "split"),
    "quantize": ("graph", "codebook"),
    "hag": ("graph", "records"),
    "pack": ("graph", "partition", "records", "codes"),
    "train": ("train", "valid", "order"),
    "soup": ("train", "valid", "ingredient*"),
    "infer": ("outputs", "soup", "ingredient*", "graph", "codes"),
    "codeloss": ("valid", "soup", "graph"),
}
EXACT = {"ingest", "split", "sizing", "influence", "order", "quantize", "pack"}
NODES, EDGES = 40, 120
PEAK = 50_000_000


@dataclass(frozen=True)
class Params:
    values: str
    name: str
    stage: str


def control() -> Path:
    return Path(os.environ["FAKE_STAGES"])


def ordered(name: str, kind: str) -> int:
    """How often `kind` is still to be done to `name`; counts it down, once for each of several
    processes that ask."""
    path = control() / f"{kind}-{name}"
    if not path.exists():
        return 0
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left = int(file.read())
        if left:
            file.seek(0)
            file.truncate()
            file.write(str(left - 1))
            file.flush()
    return left


def calls() -> list[str]:
    path = control() / "calls"
    return path.read_text().split() if path.exists() else []


def resolve(stage):
    def inner(values, facts):
        assert set(values) <= {*READS[stage], "split", "index", "of"}
        if values.get("batches.method") == "random":
            raise BadInput("batches.method = 'random' is not available in this version")
        for role in facts.values():
            if "num_nodes" in role:
                assert role["num_nodes"] == NODES
        if stage in NOTHING:
            return None
        instance = values.get("split", values.get("index"))
        name = stage if instance is None else f"{stage}.{instance}"
        return Params(json.dumps(dict(values), sort_keys=True), name, stage)

    return inner


def run(params, inputs, shard, writer):
    with open(control() / "calls", "a") as log:
        log.write(f"{params.name}/{shard.name}\n")
    if ordered(params.name, "die"):
        os._exit(3)
    if ordered(params.name, "fail"):
        raise KeyError("a bug")
    if ordered(params.name, "refuse"):
        raise BadInput("dataset: expected labels, found none", fix="add y")
    path = control() / f"sleep-{params.name}"
    for step in range(20 * int(path.read_text()) if path.exists() else 0):
        if not path.exists():
            break
        writer.progress(step, 1000, "sleeping")
        time.sleep(0.05)
    total = sum(int(reader.array("sum")[0]) for reader in inputs.values() if reader.has("sum"))
    writer.array(f"part-{shard.name}", np.array([total + len(params.values)], np.int64))
    drift = ordered(params.name, "drift")
    writer.array(f"value-{shard.name}", np.arange(100) + drift)
    writer.note("seconds_per_epoch", 0.5)
    writer.progress(1, 1)
    return {"done": shard.stop}


def finish(params, inputs, shards, writer):
    total = sum(int(shards[name].array(f"part-{name}")[0]) for name in sorted(shards))
    writer.array("sum", np.array([total]))
    if params.stage == "train":
        rows = [
            {"epoch": e, "loss": 1.0 / (e + 1), "valid_accuracy": 0.5 + e / 20} for e in range(5)
        ]
        writer.path("history.json").write_text(json.dumps(rows))
    return FACTS[params.stage](json.loads(params.values))


FACTS = {
    "ingest": lambda v: {
        "num_nodes": NODES,
        "num_edges_stored": EDGES,
        "nnz": 2 * EDGES,
        "num_features": 8,
        "num_classes": 3,
        "unlabelled": 0,
        "directed": False,
        "weighted": False,
        "features": "sparse",
        "binary": True,
        "x_nnz": 80,
    },
    "split": lambda v: {"train": 20, "valid": 10, "test": 10, "origin": "seeded"},
    "partition": lambda v: {
        "parts": 4,
        "edge_cut": 0.25,
        "balance": 1.02,
        "method": "metis",
        "num_nodes": NODES,
    },
    "sizing": lambda v: {
        "splits": {
            split: {
                "top_k": 16,
                "outputs": 10,
                "mix": 1,
                "held": [0.95, 0.9, 0.8],
                "records": 2,
                "rows": 60,
                "enough": True,
            }
            for split in ("train", "valid", "test")
        },
        "mass": "none",
    },
    "influence": lambda v: {
        "split": v["split"],
        "records": 2,
        "outputs": 20,
        "rows": 60,
        "replication": 3.0,
        "captured": 0.9,
        "method": "node",
        "num_nodes": NODES,
    },
    "order": lambda v: {"method": "label", "records": 2, "tour_length": 2.0, "random_length": 1.0},
    "codebook": lambda v: {"codec": "lossless", "sample": 0, "num_nodes": NODES, "num_features": 8},
    "quantize": lambda v: {
        "codec": "lossless-bits",
        "row_bytes": 1,
        "code_bytes": 40,
        "table_bytes": 0,
        "compression_ratio": 32.0,
        "nmse": 0.0,
        "nmse_aggregated": None,
        "num_nodes": NODES,
        "num_features": 8,
    },
    "hag": lambda v: {
        "use": False,
        "why": "none of 2 records gains",
        "predicted_gain": 1.0,
        "possible_gain": 1.1,
    },
    "pack": lambda v: {
        "split": v["split"],
        "records": 2,
        "rows": 60,
        "edges": 200,
        "outputs": 20,
        "replication": 3.0,
        "num_classes": 3,
        "num_features": 8,
        "max_rows": 31,
        "max_edges": 101,
        "dropped_nodes": 3,
        "bytes": 5000,
    },
    "train": lambda v: {
        "seed": v["train.seed"] + v["index"],
        "epochs": 5,
        "best_epoch": 4,
        "valid_accuracy": 0.7 + v["index"] / 100,
        "num_parameters": 1000,
    },
    "soup": lambda v: {
        "chosen": "greedy",
        "chosen_by": "validation",
        "methods": {
            name: {"valid_accuracy": 0.75, "valid_loss": 1.0, "members": [0]}
            for name in ("best", "uniform", "greedy")
        },
    },
    "infer": lambda v: {
        "num_outputs": 10,
        "test_accuracy": 0.74,
        "full_graph_test_accuracy": 0.745,
        "results": {
            "ingredient:0": 0.71,
            "ingredient:1": 0.72,
            "best": 0.72,
            "uniform": 0.7,
            "greedy": 0.74,
        },
    },
}


def shards(params, inputs):
    count = 3 if params.stage in ("influence", "pack") else 1
    return [Shard(f"{params.name}-{i}", i, i + 1) for i in range(count)]


STAGES = {
    name: Stage(
        name=name,
        version=1,
        exact=name in EXACT,
        params=Params,
        roles=ROLES[name],
        reads=READS[name],
        resolve=resolve(name),
        shards=shards,
        run=run,
        finish=finish,
        cost=lambda params, facts: Cost(1000, 1000, PEAK),
        planning=REAL[name].planning,
        reporting=REAL[name].reporting,
    )
    for name in REAL
    if name in READS
}


def install() -> None:
    """Put the fakes in place of the real stages in this process."""
    REAL.clear()
    REAL.update(STAGES)


@contextmanager
def installed():
    """The same for the time of a test."""
    before = dict(REAL)
    install()
    try:
        yield
    finally:
        REAL.clear()
        REAL.update(before)


def write_source(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "toy.npz"
    np.savez(
        path,
        edge_index=rng.integers(0, NODES, (2, EDGES)),
        num_nodes=np.int64(NODES),
        x=np.ones((NODES, 8), np.float32),
        y=rng.integers(0, 3, NODES),
    )
    return path


def dask_setup(worker) -> None:
    """Preloaded by the workers of a test: they find the fakes too. `start` says how long a worker
    takes to start, in seconds."""
    del worker
    if (slow := control() / "start").exists():
        time.sleep(float(slow.read_text()))
    install()


if __name__ == "__main__":
    import dask

    from stockpot.cli import main

    # The name under which workers import this file, not "__main__".
    dask.config.set({"distributed.worker.preload": ["tests.pipeline.fakes"]})
    install()
    sys.exit(main())
