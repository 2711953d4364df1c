"""`make bench-beyond`: training where features do not fit in memory, against loops over a
memory-mapped feature file.

    make bench-beyond ARGS='--dgl DIR'        # DIR: a folder with DGL 1.1.3 (pip install --target)
    make bench-beyond ARGS='--dgl DIR --nodes 1e6 --columns 384 --seconds 60'
    make bench-beyond ARGS='--dgl DIR --graphbolt DIR2/bin/python'

A synthetic graph of communities, whose features take three times the memory that each side is
given (a control group; pages of files count). Both sides train the same GraphSAGE with the same
kernels and the same optimiser, one thread; batches are all that differs. DGL's neighbour sampler
reads its rows from a memory map, as it is and with `MADV_RANDOM`, sorted by id in a batch.
GraphBolt's does the same from its features on disk, in an environment of its own, its process alone
held to the memory. The disk is this machine's, and throttled to 3,000 reads and 125 MiB a second.
Each run is cold, and ends after `--seconds`: seconds and bytes of an epoch follow from the outputs
it came to. The rows that an LRU cache of all the memory would read again are counted on DGL's own
batches, in whole pages of 4 kB; its seconds are reckoned, bytes at the rate of the measured rows
with `MADV_RANDOM`.

What our records took to build, after the graph is ingested and split, stands apart, in seconds of
one thread, and included: the first training, and after how many epochs and trainings it has paid.

Epochs to the same accuracy are counted in memory, by exact inference on the whole graph after every
epoch: those at which a side first comes within 0.3 points of the lower of the two best validation
accuracies. Seconds to it are these epochs, each as long as measured under the limit. Rows go to
runs/bench/beyond.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stockpot.stages.infer.full_graph import full_graph_logits
from stockpot.stages.pack.layers import adjacency
from stockpot.stages.sample.reuse import lru_misses
from stockpot.stages.train.model import load_model
from stockpot.store.store import Store
from tests.bench.beyond_limits import Limits, forget
from tests.bench.beyond_rows import (
    break_even_rows,
    epoch_row,
    lru_row,
    preprocessing_seconds,
    table,
)
from tests.bench.inline import run
from tests.bench.machine import machine

PAGE = 4096
RANDOM = "dgl, MADV_RANDOM"
ADVICE = {
    "dgl, memory map": "normal", RANDOM: "random",
    "graphbolt, on disk": "normal", "graphbolt, MADV_RANDOM": "random",
}  # fmt: skip
THIS, CLOUD = "this one", "3,000 reads, 125 MiB a second"
WITHIN = 0.003


def built(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(summary of the run, readers by node) of packed training records."""
    recipe = folder / "beyond.toml"
    source = (
        f"synthetic:communities?nodes={args.nodes}&edges={5 * args.nodes}&features={args.columns}"
        f"&labelled={args.labelled}&noise=6"
    )
    recipe.write_text(f'[dataset]\nsource = "{source}"\n')
    sets = [
        "features.codec=fp32", "features.layout=packed", "batches.top_k=8", "batches.mix=512",
        "batches.outputs=1000", "train.model=sage",
    ]  # fmt: skip
    summary = run(recipe, sets, args.store, folder, ["pack", "order"])
    store = Store(args.store)
    described = json.loads((folder / "beyond" / "run.json").read_text())
    nodes = ("ingest", "split", "order", "pack:train")
    readers = {}
    for node in nodes:
        entry = described["artifacts"][node]
        readers[node] = store.open(entry["stage"], entry["key"])
    return summary, readers


def peer_files(readers: dict[str, Any], folder: Path) -> dict[str, str]:
    """What the peer reads: features as one file, the graph and the split as another."""
    graph, split = readers["ingest"], readers["split"]
    x = graph.array("x")
    stored = np.lib.format.open_memmap(
        folder / "features.npy", mode="w+", dtype=np.float32, shape=x.shape
    )
    for start in range(0, len(x), 1 << 16):
        stored[start : start + (1 << 16)] = x[start : start + (1 << 16)]
    stored.flush()
    arrays = {name: np.asarray(graph.array(name)) for name in ("indptr", "indices", "y")}
    arrays |= {"indices": arrays["indices"].astype(np.int64)}
    np.savez(folder / "graph.npz", **arrays, train=np.asarray(split.array("train")))
    return {"features": str(folder / "features.npy"), "graph": str(folder / "graph.npz")}


def asked(
    kind: str, job: dict[str, Any], args: argparse.Namespace, limits: Limits | None
) -> list[dict]:
    """Lines of one side, in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        command = [sys.executable, "-m", "tests.bench.beyond_side", kind, file.name]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        if kind == "dgl":
            env["PYTHONPATH"] = os.pathsep.join(
                part for part in (os.environ.get("PYTHONPATH", ""), str(args.dgl)) if part
            )
        if limits is None:
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            out = done.stdout
        else:
            out = limits.run(command, env, child_alone=kind == "graphbolt")
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def accuracies(readers: dict[str, Any], weights: Path, epochs: int) -> list[float]:
    """Validation accuracy after each epoch, by exact inference on the whole graph."""
    graph, ids = readers["ingest"], np.asarray(readers["split"].array("valid"), np.int64)
    matrix = adjacency(graph.array("indptr"), graph.array("indices"), adj="mean")
    x, y = torch.from_numpy(np.array(graph.array("x"))), np.asarray(graph.array("y"))[ids]
    found = []
    for epoch in range(epochs):
        model = load_model(weights / f"{epoch}.safetensors").eval()
        logits = full_graph_logits(model, matrix, x)[torch.from_numpy(ids)]
        found.append(float((logits.argmax(1).numpy() == y).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=lambda text: int(float(text)), default=3_000_000)
    parser.add_argument("--columns", type=int, default=384)
    parser.add_argument("--labelled", type=float, default=0.02, help="share of the nodes")
    parser.add_argument("--times", type=float, default=3.0, help="features over the memory limit")
    parser.add_argument("--fanouts", type=int, nargs="+", default=[5, 5, 5], help="of the peer")
    parser.add_argument(
        "--batch", type=int, default=250, help="outputs of the peer's batch: more take more memory"
    )
    parser.add_argument("--epochs", type=int, default=4, help="in memory, to compare accuracies")
    parser.add_argument("--seconds", type=float, default=60, help="most of a run under limits")
    parser.add_argument("--dgl", type=Path, default=None, help="folder that DGL is installed in")
    parser.add_argument("--graphbolt", default=None, help="python of GraphBolt's environment")
    parser.add_argument("--store", default="runs/store")
    parser.add_argument("--folder", type=Path, default=Path("runs/beyond"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    summary, readers = built(args, args.folder)
    preprocessing = preprocessing_seconds(summary["stages"])
    files = peer_files(readers, args.folder)
    pack, facts = readers["pack:train"], readers["ingest"].facts
    feature_bytes = 4 * facts["num_nodes"] * facts["num_features"]
    limit = int(feature_bytes / args.times)
    outputs = int(pack.facts["outputs"])
    config = {
        "model": "sage", "num_features": facts["num_features"],
        "num_classes": facts["num_classes"], "hidden": 256, "layers": 3, "dropout": 0.5,
        "normalization": "none", "mass": "none", "self_loops": False,
    }  # fmt: skip
    job = {
        "model": config, "seed": args.seed, "store": args.store, "train": True,
        "pack": pack.key, "order": readers["order"].key, **files, "fanouts": args.fanouts,
        "batch": args.batch, "advice": "normal", "python": args.graphbolt,
    }  # fmt: skip
    missing_peers = {
        kind: f"no --{kind}" for kind in ("dgl", "graphbolt") if getattr(args, kind) is None
    }
    kinds = [kind for kind in ("stockpot", "dgl", "graphbolt") if kind not in missing_peers]
    valid, needed = {}, {}
    for kind in kinds:
        weights = args.folder / "weights" / kind
        weights.mkdir(parents=True, exist_ok=True)
        more = {"epochs": args.epochs, "seconds": 1e9, "weights": str(weights)}
        more |= {"accesses": str(args.folder / "accesses.npz")} if kind == "dgl" else {}
        in_memory = asked(kind, job | more, args, None)
        valid[kind] = accuracies(readers, weights, args.epochs)
        print(f"{kind}, in memory: {valid[kind]}, {in_memory[-1]}", flush=True)
    target = min(max(found) for found in valid.values()) - WITHIN
    for kind, found in valid.items():
        needed[kind] = 1 + next(i for i, accuracy in enumerate(found) if accuracy >= target)
    rows: list[dict[str, Any]] = []
    cold = [
        *map(Path, files.values()),
        *(path for path in pack.root.rglob("*") if path.is_file()),
    ]
    missing = Limits(limit, args.folder).missing
    if missing:
        print(f"no limits can be set here ({missing}): cold runs without, whose bytes count")
    lru = None
    if "dgl" in kinds:
        accesses = np.load(args.folder / "accesses.npz")
        capacity = limit // (4 * facts["num_features"])
        reads = accesses["n_id"].astype(np.int32), accesses["n_ptr"]
        share = lru_misses(*reads, facts["num_nodes"], capacity)
        row_bytes = PAGE * -(-4 * facts["num_features"] // PAGE)
        lru = {"rows": capacity, "missed": share}
        lru["bytes_an_epoch"] = share * len(reads[0]) * row_bytes / args.epochs
    for disk in (None,) if missing else (None, args.folder):
        words = CLOUD if disk else THIS
        for name in ("stockpot", *ADVICE):
            kind = name.split(",")[0]
            if kind not in kinds:
                rows.append({"what": name, "disk": words, "missing": missing_peers[kind]})
                continue
            forget(*cold)
            more = {"epochs": 1, "seconds": args.seconds, "advice": ADVICE.get(name, "normal")}
            try:
                (line,) = asked(kind, job | more, args, None if missing else Limits(limit, disk))
            except RuntimeError as error:
                rows.append({"what": name, "disk": words, "missing": f"it ended: {error}"})
                continue
            rows.append(epoch_row(name, words, line, outputs, needed[kind]))
            print(json.dumps(rows[-1]), flush=True)
            if name == RANDOM and lru is not None:
                what = f"dgl, an LRU cache of {lru['rows']:,} rows"
                cached = lru_row(what, rows[-1], lru["bytes_an_epoch"])
                rows.append(cached or {"what": what, "disk": words, "missing": "nothing was read"})
    found = {
        **machine(), "graph": {name: facts[name] for name in ("num_nodes", "nnz", "num_features")},
        "outputs": outputs, "feature_bytes": feature_bytes,
        "memory_bytes": None if missing else limit,
        "preprocessing": preprocessing, "valid": valid, "target": target, "lru": lru, "rows": rows,
        "break_even": list(break_even_rows(rows, sum(preprocessing.values()))),
    }  # fmt: skip
    out = Path("runs/bench/beyond.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1))
    print("\n".join(table(found)))
    if lru:
        print(f"An LRU cache of all the memory misses {lru['missed']:.1%} of DGL's rows.")


if __name__ == "__main__":
    main()
