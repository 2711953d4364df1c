"""What untouched defaults give on many graphs, against full-batch training of the same model.

    make accuracy ARGS="--defaults"  # all graphs, GCN and SIGN, published split or split seed 0
    make accuracy ARGS="--defaults --data cora dense --seeds 1 2 --set batches.top_k=16"

Nothing but the data source, the split seed, one ingredient instead of eight, and what `REDUCED`
says is set; for SIGN, the baseline that reads no edge, `BASELINE` too. The reference is GCN trained
on the whole graph to its own early stop by its validation accuracy (`tests.bench.full_batch`, lr
5e-3, patience 100, most 1,000 epochs, or as `--epochs` says); `KNOWN` ones are those of
stages/README.md, not computed again. Everything is run by this process with one thread. Rows go to
runs/bench/defaults.json as they are measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import torch

from stockpot.stages.train.model import build_model
from tests.bench.full_batch import configured, load, matrix, train
from tests.bench.inline import run

SHARED = "npz:../shared/data"
COMMUNITIES = "synthetic:communities?"
DENSE = "features=32&classes=8&hubs=0"
SOURCES = {
    "cora": f"{SHARED}/cora_planetoid.npz",
    "citeseer": f"{SHARED}/citeseer_planetoid.npz",
    **{f"chameleon {mask}": f"{SHARED}/chameleon.npz" for mask in range(10)},
    "computers": f"{SHARED}/amazon_computers.npz",
    "dense": f"{COMMUNITIES}nodes=2000&edges=66000&communities=16&inside=0.25&noise=6&{DENSE}",
    "denser": f"{COMMUNITIES}nodes=1500&edges=120000&communities=16&inside=0.2&noise=8&{DENSE}",
    "homophilous": "synthetic:communities?nodes=2e4&edges=2e5&features=32&classes=8&inside=0.7",
    "debian": f"{SHARED}/debian12_packages.npz",
    "physics": f"{SHARED}/coauthor_physics.npz",
    "wordnet": "wordnet",
}
REDUCED = {"debian": 128, "physics": 128, "wordnet": 128}
"""Columns of features that are left, where all of them would take hours."""
KNOWN = {"computers": 0.9131, "physics": 0.9621, "wordnet": 0.8359}
"""Test accuracy of full batch by stages/README.md, GCN."""


BASELINE = ["train.model=sign", "features.propagate=3", "batches.method=propagate"]


def defaults(data: str, seed: int, extra: list[str], store: str, runs: str) -> dict:
    """Run a recipe that names only its data."""
    recipe = Path(runs) / "recipes" / f"{data.replace(' ', '-')}-{seed}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(f'[dataset]\nsource = "{SOURCES[data]}"\n')
    sets = [f"dataset.split.seed={seed}", "train.ingredients=1", *extra]
    if data.startswith("chameleon"):
        sets.append(f"dataset.split_index={data.split()[1]}")
    if data in REDUCED:
        sets.append(f"features.reduce={REDUCED[data]}")
    return run(recipe, sets, store, runs)


def figures(summary: dict) -> dict:
    single, sizing = (
        summary["train"]["ingredients"][0],
        summary["stages"].get("sizing") or {"splits": {}},
    )
    return {
        "valid": single["valid_accuracy"],
        "test": summary["infer"]["test_accuracy"],
        "test_full_graph": summary["infer"]["full_graph_test_accuracy"],
        "epochs": single["epochs"],
        "seconds": single["seconds"],
        "sizes": {split: (one["top_k"], one["outputs"]) for split, one in sizing["splits"].items()},
        "mass": sizing.get("mass"),
        "remarks": summary["remarks"],
    }


def reference(folder: Path, trainings: int, epochs: int) -> dict:
    """Full batch on the graph, split and model of a run: the mean of so many trainings."""
    graph, x, y, lists, recipe = load(folder)
    args = SimpleNamespace(
        lr=5e-3, schedule="plateau", epochs=epochs, patience=100, model=recipe["train"]["model"]
    )
    for name in ("layers", "hidden", "heads", "dropout", "weight_decay"):
        setattr(args, name, recipe["train"][name])
    tensors = torch.from_numpy(x), torch.from_numpy(y), [torch.from_numpy(ids) for ids in lists]
    adj = matrix(graph, build_model(configured(args, *tensors[:2])).adj)
    found = [train(adj, *tensors, args, seed) for seed in range(trainings)]
    means = {
        name: statistics.fmean(one[name] for one in found)
        for name in ("valid_accuracy", "test_accuracy")
    }
    return {**means, "trainings": found}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", default=list(SOURCES), metavar="GRAPH", help=", ".join(SOURCES)
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of the split, where none is published"
    )
    parser.add_argument("--models", nargs="+", choices=["gcn", "sign"], default=["gcn", "sign"])
    parser.add_argument("--trainings", type=int, default=1, help="of the reference, averaged")
    parser.add_argument(
        "--epochs", type=int, default=1000, help="of the reference, at most; rows say how many"
    )
    parser.add_argument("--set", action="append", default=[], dest="extra", help="recipe override")
    parser.add_argument("--store", default="runs/store")
    parser.add_argument("--runs", default="runs/defaults")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/defaults.json"))
    parser.add_argument("--no-reference", action="store_true", help="only stockpot's side")
    args = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    print(
        "| data | model | split seed | train sizes, mass | valid | full batch | batched | less "
        "| full graph | less |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for data in args.data:
        for seed, model in product(args.seeds, args.models):
            started = time.process_time()
            extra = [*(BASELINE if model == "sign" else []), *args.extra]
            summary = defaults(data, seed, extra, args.store, args.runs)
            row = {"data": data, "model": model, "seed": seed, "set": extra, **figures(summary)}
            known = KNOWN.get(data) if seed == 0 else None
            if known is not None:
                row["full_batch"] = {"test_accuracy": known}
            elif not args.no_reference and model == "gcn":
                row["full_batch"] = reference(
                    Path(args.runs) / summary["dataset"]["name"], args.trainings, args.epochs
                )
            row["cpu_seconds"] = time.process_time() - started
            rows.append(row)
            args.out.write_text(json.dumps(rows, indent=1))
            whole = row.get("full_batch", {}).get("test_accuracy", float("nan"))
            less = [100 * (row[name] - whole) for name in ("test", "test_full_graph")]
            print(
                f"| {data} | {model} | {seed} | {row['sizes'].get('train')}, {row['mass']} | "
                f"{100 * row['valid']:.2f} "
                f"| {100 * whole:.2f} | {100 * row['test']:.2f} | {less[0]:+.2f} "
                f"| {100 * row['test_full_graph']:.2f} | {less[1]:+.2f} |",
                flush=True,
            )
