"""What networks lose on coded features: GCN and SAGE against the same models on fp32, seed by seed.

    python -m tests.bench.quantize_accuracy                          # Physics, 128 SVD columns; about twenty minutes
    python -m tests.bench.quantize_accuracy --data wordnet debian --epochs 12

Every model is trained on packed records of the same batches, in the same order, from the same start, with the same
dropout; only the features are decoded. The residual code of the most stages that is 30, or 60, times smaller than fp32
with all its tables counted. Points of test accuracy lost, mean over seeds with its standard error. Rows go to
runs/bench/quantize_accuracy.json as they are measured, so a stopped run loses nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

COLUMNS = 128
DATA = {
    "wordnet": ("data/wordnet.toml", 117_659, []),
    "physics": ("data/physics.toml", 34_493, ["dataset.source=npz:{shared}/coauthor_physics.npz"]),
    "debian": ("data/physics.toml", 63_436, ["dataset.source=npz:{shared}/debian12_packages.npz"]),
}
TARGETS = ((30, 0.2), (60, 0.5))
"""Times smaller, and points that may be lost."""


def stages_of(rows: int, smaller: int) -> int:
    """Most stages of a residual code, 256 half-float rows each, beside its shift."""
    return (4 * COLUMNS * rows // smaller - 4 * COLUMNS) // (rows + 256 * COLUMNS * 2)


def trained(data: str, model: str, codec: str, args: argparse.Namespace) -> dict:
    """The run's summary."""
    recipe, _, own = DATA[data]
    sets = [f"features.codec={codec}", f"train.model={model}", f"train.epochs={args.epochs}"]
    sets += [f"train.ingredients={args.seeds}", "train.vary=1.0", "soup.method=best", "infer.full_graph=false"]
    sets += [pair.format(shared=args.shared) for pair in own] + args.extra
    runs = Path(args.runs) / f"{data}-{model}-{codec}"
    command = [sys.executable, "-m", "pipeline.cli", "run", recipe, "--store", args.store, "--runs", str(runs)]
    for pair in sets:
        command += ["--set", pair]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((runs / Path(recipe).stem / "summary.json").read_text())


def points(summary: dict) -> list[float]:
    return [100 * single["test_accuracy"] for single in summary["train"]["ingredients"]]


def compared(data: str, model: str, args: argparse.Namespace) -> list[dict]:
    exact = points(trained(data, model, "fp32", args))
    rows = []
    for smaller, allowed in TARGETS:
        codec = f"rq{stages_of(DATA[data][1], smaller)}"
        summary = trained(data, model, codec, args)
        coded, facts = points(summary), summary["stages"]["quantize"]
        lost = [a - b for a, b in zip(exact, coded, strict=True)]
        error = statistics.stdev(lost) / math.sqrt(len(lost)) if len(lost) > 1 else float("nan")
        ratio = facts["compression_ratio"]
        print(
            f"| {data} | {model} | {codec} | {ratio:.1f} | {statistics.mean(exact):.2f} | {statistics.mean(coded):.2f} "
            f"| {statistics.mean(lost):+.2f} ± {error:.2f} | {allowed} |",
            flush=True,
        )
        rows.append(
            {
                "what": f"test accuracy lost by {model}, {codec}, {ratio:.1f} times smaller, {args.epochs} epochs",
                "dataset": data,
                "ours": statistics.mean(lost),
                "error": error,
                "lost": lost,
                "peer": "fp32",
                "peer_value": statistics.mean(exact),
                "unit": "points",
                "threads": 1,
                "n": len(lost),
                "ratio": ratio,
                "target": allowed,
                "met": statistics.mean(lost) <= allowed and ratio >= smaller,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["physics"], choices=DATA)
    parser.add_argument("--models", nargs="+", default=["gcn", "sage"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], dest="extra", help="recipe override, of both sides")
    parser.add_argument("--shared", default="../shared/data", help="folder of graphs not in here")
    parser.add_argument("--store", default="runs/store")
    parser.add_argument("--runs", default="runs/quantize_accuracy")
    args = parser.parse_args()
    out = Path("runs/bench/quantize_accuracy.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print("| data | model | codec | times smaller | fp32 | coded | points lost | allowed |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows: list[dict] = []
    for data in args.data:
        for model in args.models:
            rows += compared(data, model, args)
            out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
