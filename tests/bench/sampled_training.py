"""What trainings by sampled batches come to on the embedded graph, for the verdict of a run.

    python -m tests.bench.sampled_training --dgl DIR    # DIR: a folder with DGL 1.1.3

DGL 1.1.3's neighbour sampler trains the model of data/wordnet.toml on its features without the
propagated ones, on its split, once for each number of epochs: one thread, a cosine, the rate and
the fanout that `make bench-train` chose on validation. Seconds are CPU seconds of training and of a
validation after every epoch by its own batches; accuracy is that of exact inference on the whole
graph at the end. Written to pipeline/report/sampled_training.json, which `stockpot run` reads.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from stockpot.locate import artifact_of
from stockpot.report.machine import machine
from tests.bench.inline import run
from tests.bench.training_graphs import described, peer_files
from tests.bench.training_process import alternating, not_installed

RECIPE = Path("data/wordnet.toml")
OUT = Path("pipeline/report/sampled_training.json")
RATE = 1e-2
PEER = "DGL 1.1.3's neighbour sampler"


def trained(args: argparse.Namespace) -> list[dict[str, Any]]:
    """{epochs, seconds, valid, test} of a training for each number of epochs, means over seeds."""
    sets = ["features.propagate=0", "features.codec=fp32"]
    run(RECIPE, sets, args.folder / "store", args.folder, ["quantize", "pack:train", "order"])
    folder = args.folder / RECIPE.stem
    records = described(RECIPE, sets, folder, 0.0)
    jobs = {
        f"{epochs} epochs, seed {seed}": {
            "kind": "dgl", "seed": seed, "config": records.config, "run": str(folder),
            **peer_files(folder, args.folder), "batch": records.train["batch"], "precision": "fp32",
            "schedule": "cosine", "lr": RATE, "epochs": epochs, "every": epochs, "columns": 128,
            "records": records.digest, "fanouts": [args.fanout] * int(records.config["layers"]),
        }
        for epochs in args.epochs
        for seed in range(args.seeds)
    }  # fmt: skip
    found = []
    for epochs in args.epochs:
        ends = []
        for seed in range(args.seeds):
            name = f"{epochs} epochs, seed {seed}"
            curve = alternating({name: jobs[name]}, args.folder, args.dgl)[name]["curve"]
            ends.append(curve[-1])
        means = {
            name: statistics.fmean(getattr(end, name) for end in ends)
            for name in ("seconds", "valid", "test")
        }
        found.append({"epochs": epochs, **{name: round(v, 4) for name, v in means.items()}})
        print(found[-1], flush=True)
    return found


def splits(folder: Path) -> list[int]:
    """Outputs of train, valid and test."""
    facts = artifact_of(folder, "split").facts
    return [int(facts[name]) for name in ("train", "valid", "test")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--fanout", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--dgl", type=Path, default=None, help="folder that DGL is installed in")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/sampled"))
    args = parser.parse_args()
    if why := not_installed("dgl", args.dgl, None):
        raise SystemExit(why)
    args.folder.mkdir(parents=True, exist_ok=True)
    trainings = trained(args)
    figures = {
        "source": "wordnet",
        "splits": splits(args.folder / RECIPE.stem),
        "peer": PEER,
        "about": f"fanout {args.fanout}, Adam at {RATE:g}, a cosine; as many outputs a step",
        "cpu": machine()["processor"],
        "threads": 1,
        "seeds": args.seeds,
        "command": "python -m tests.bench.sampled_training --dgl DIR",
        "trainings": trainings,
    }
    OUT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
