"""What `features.codec = "auto"` costs networks where it codes features: real trainings, pair by
pair, against fp32.

    python -m tests.bench.codec_table  # every graph, GCN and SAGE; about half an hour of one core
    python -m tests.bench.codec_table --graphs issue wordnet --models gcn

Each row runs a recipe with `features.lossless_up_to = 0`, so that stage `judge` has its say
whatever the size of the features, and then trains the model on the packed records of both sides,
the chosen code and fp32: five ingredients each, which share start, batches and dropout pair by
pair. Points of test accuracy lost, mean and standard error over pairs, and the one-sided 95 % lower
bound, against what was allowed. Where auto keeps the features there is one side only, and nothing
to lose. Rows go to runs/bench/codec_table.json as they are measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

from stockpot.stages.codec.format import EXACT
from tests.runs import run_here

T_95 = 2.132
"""One-sided, of five pairs (Student's t of 4 degrees of freedom)."""
FILES = {
    "wordnet": ("data/wordnet.npz", 128),
    "debian": ("{shared}/debian12_packages.npz", 128),
    "physics": ("{shared}/coauthor_physics.npz", 128),
    "computers": ("{shared}/amazon_computers.npz", 0),
    "computers-svd": ("{shared}/amazon_computers.npz", 64),
    "cora": ("{shared}/cora_planetoid.npz", 0),
    "citeseer-svd": ("{shared}/citeseer_planetoid.npz", 64),
    "chameleon-svd": ("{shared}/chameleon.npz", 64),
}
MADE = {
    "issue": {"nodes": 20_000, "columns": 32, "classes": 8, "homophily": 0.7},
    "homophily-high": {
        "nodes": 40_000,
        "columns": 64,
        "classes": 16,
        "homophily": 0.85,
        "signal": 0.3,
    },
    "homophily-low": {
        "nodes": 40_000,
        "columns": 64,
        "classes": 8,
        "homophily": 0.15,
        "signal": 0.35,
    },
    "heavy-tails": {
        "nodes": 40_000,
        "columns": 64,
        "classes": 16,
        "homophily": 0.6,
        "signal": 0.5,
        "tails": True,
    },
    "few-columns": {"nodes": 40_000, "columns": 8, "classes": 6, "homophily": 0.6, "signal": 0.8},
    "many-columns": {
        "nodes": 30_000,
        "columns": 512,
        "classes": 16,
        "homophily": 0.5,
        "signal": 0.12,
    },
}
RECIPE = """
[dataset]
source = "npz:{source}"
[features]
reduce = {reduce}
codec = "{codec}"
lossless_up_to = 0
[batches]
top_k = 16
[train]
model = "{model}"
layers = 2
hidden = 64
dropout = 0.2
lr = 1e-2
schedule = "cosine"
epochs = {epochs}
patience = {epochs}
ingredients = {seeds}
device = "cpu"
[soup]
method = "best"
[infer]
full_graph = false
"""


def made(
    nodes: int,
    columns: int,
    classes: int,
    homophily: float,
    *,
    signal: float = 0.5,
    tails: bool = False,
) -> dict[str, np.ndarray]:
    """Classes as noisy centres of float columns; `tails`: columns of unequal scales with heavy
    tails."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, nodes)
    source = rng.integers(0, nodes, 4 * nodes)
    target = rng.integers(0, nodes, len(source))
    inside = rng.random(len(source)) < homophily
    for c in range(classes):
        mine = np.flatnonzero(inside & (y[source] == c))
        target[mine] = rng.choice(np.flatnonzero(y == c), len(mine))
    x = signal * rng.normal(size=(classes, columns))[y] + rng.normal(size=(nodes, columns))
    if tails:
        x *= rng.chisquare(3, x.shape) ** -0.5 * 3**0.5
        x *= 10 ** rng.uniform(-1, 1, columns)
    return {
        "edge_index": np.stack([source, target]).astype(np.int32),
        "num_nodes": np.int64(nodes),
        "x": x.astype(np.float32),
        "y": y.astype(np.int64),
    }


def built(name: str, model: str, codec: str, args: argparse.Namespace, *targets: str) -> dict:
    """Readers of some stages of the row's recipe."""
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    source, reduce = FILES.get(name, (str(folder / f"{name}.npz"), 0))
    if name in MADE and not Path(source).exists():
        np.savez(source, **made(**MADE[name]))
    recipe = folder / f"{name}-{model}-{codec}.toml"
    values = {
        "reduce": reduce,
        "codec": codec,
        "model": model,
        "epochs": args.epochs,
        "seeds": args.seeds,
    }
    recipe.write_text(RECIPE.format(source=source.format(shared=args.shared), **values))
    return run_here(recipe, folder, targets)


def measured(name: str, model: str, args: argparse.Namespace) -> dict:
    """A row of the table."""
    started = time.process_time()
    chosen = built(name, model, "auto", args, "quantize")
    judge = chosen["judge"].facts if "judge" in chosen else {}
    codec = chosen["quantize"].facts["codec"]
    row = {
        "dataset": name,
        "model": model,
        "codec": codec,
        "reason": judge.get("reason", "kept"),
        "target": args.allowed,
    }
    row |= {
        "ratio": chosen["quantize"].facts["compression_ratio"],
        "judge_rows": judge.get("row_passes", 0),
    }
    row |= {
        "judged_seconds": time.process_time() - started,
        "lost": [],
        "ours": 0.0,
        "error": 0.0,
        "least": 0.0,
    }
    if codec not in EXACT or chosen["quantize"].facts["nmse"]:
        sides = [built(name, model, side, args, "infer") for side in ("fp32", "auto")]
        points = [
            [100 * s["infer"].facts["results"][f"ingredient:{i}"] for i in range(args.seeds)]
            for s in sides
        ]
        lost = [a - b for a, b in zip(*points, strict=True)]
        mean, error = statistics.mean(lost), statistics.stdev(lost) / math.sqrt(len(lost))
        row |= {"lost": lost, "ours": mean, "error": error, "least": mean - T_95 * error}
        row |= {"peer_value": statistics.mean(points[0]), "share": share(sides[1])}
    return {**row, "met": row["least"] <= args.allowed, "seconds": time.process_time() - started}


def share(built_of: dict) -> float:
    """Row-passes of the judge over those of the ingredients' epochs here, which are fewer than a
    recipe's."""
    epochs = sum(
        reader.facts["epochs"] for name, reader in built_of.items() if name.startswith("train:")
    )
    return built_of["judge"].facts["row_passes"] / (epochs * built_of["pack:train"].facts["rows"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", nargs="+", default=[*FILES, *MADE], choices=[*FILES, *MADE])
    parser.add_argument("--models", nargs="+", default=["gcn", "sage"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--allowed", type=float, default=0.2, help="points, of features.max_accuracy_drop's default"
    )
    parser.add_argument("--shared", default="../shared/data", help="folder of graphs not in here")
    parser.add_argument("--runs", default="runs/codec_table")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/codec_table.json"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(
        "| graph | model | codec, times smaller | fp32 | points lost | at least | allowed | "
        "judge's rows | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    rows: list[dict] = []
    for name in args.graphs:
        for model in args.models:
            row = measured(name, model, args)
            rows.append(row)
            fp32 = f"{row['peer_value']:.2f}" if "peer_value" in row else ""
            lost = (
                f"{row['ours']:+.2f} ± {row['error']:.2f} | {row['least']:+.2f}"
                if row["lost"]
                else "0 | 0"
            )
            print(
                f"| {name} | {model} | {row['codec']}, {row['ratio']:.1f} | {fp32} | {lost} | "
                f"{row['target']} "
                f"| {row['judge_rows']:,} | {row['seconds']:.0f} |",
                flush=True,
            )
            args.out.write_text(
                json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1)
            )


if __name__ == "__main__":
    main()
