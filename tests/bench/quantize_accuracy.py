"""What networks lose on coded features: GCN and SAGE against the same models on fp32, seed by seed.

    python -m tests.bench.quantize_accuracy  # Physics, 128 SVD columns; about twenty minutes
    python -m tests.bench.quantize_accuracy --data wordnet debian --epochs 12
    python -m tests.bench.quantize_accuracy --data wordnet --models gcn --codecs opq16 sq4
    python -m tests.bench.quantize_accuracy --data physics --models gcn --tier 0.05

Every model is trained on packed records of the same batches, in the same order, from the same
start, with the same dropout; only the features are decoded. Codecs: the residual code of the most
stages that is 30, or 60, times smaller than fp32 with all its tables counted, or those of --codecs.
--tier gives further stages to that share of the nodes, and compares the same code without them too.
"synthetic": 100,000 nodes, 64 correlated columns of unequal scales with heavy tails
(`tests.bench.quantize.synthetic`); "wordnet-few": WordNet, 3 % of its nodes to train on, 1 % to
validate, 4 % to test. Points of test accuracy lost, mean over seeds with its standard error. Rows
go to runs/bench/quantize_accuracy.json as they are measured, so a stopped run loses nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

DATA = {
    "wordnet": ("tests/bench/wordnet-gcn.toml", 117_659, 128, []),
    "physics": (
        "data/physics.toml",
        34_493,
        128,
        ["dataset.source=npz:{shared}/coauthor_physics.npz"],
    ),
    "debian": (
        "data/physics.toml",
        63_436,
        128,
        ["dataset.source=npz:{shared}/debian12_packages.npz"],
    ),
    "synthetic": (
        "data/physics.toml",
        100_000,
        64,
        ["dataset.source=npz:{made}", "features.reduce=0"],
    ),
    "wordnet-few": (
        "tests/bench/wordnet-gcn.toml",
        117_659,
        128,
        ["dataset.source=npz:{made}"],
    ),
}
"""Recipe, nodes, columns, and what the recipe's own settings are replaced by."""
TARGETS = ((30, 0.2), (60, 0.5))
"""Times smaller, and points that may be lost."""


def stages_of(rows: int, columns: int, smaller: int) -> int:
    """Most stages of a residual code, 256 half-float rows each, beside its shift."""
    return (4 * columns * rows // smaller - 4 * columns) // (rows + 256 * columns * 2)


def made(folder: Path, data: str) -> Path:
    """A graph that is in no file, as one: "synthetic" (2 : 1 : 1 split), or WordNet with few
    outputs."""
    path = folder / f"{data}.npz"
    if data not in ("synthetic", "wordnet-few") or path.exists():
        return path
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    nodes = DATA[data][1]
    if data == "wordnet-few":
        order = np.random.default_rng(0).permutation(nodes)
        ends = [0, 3 * nodes // 100, 4 * nodes // 100, 8 * nodes // 100]
        parts = [np.sort(order[a:b]) for a, b in itertools.pairwise(ends)]
        with np.load("data/wordnet.npz") as z:
            members = {
                name: z[name]
                for name in z
                if name in ("edge_index", "num_nodes", "y") or name[:2] == "x_"
            }
    else:
        from tests.bench.quantize import synthetic

        graph, train, valid = synthetic(nodes)
        parts = [train, valid, np.setdiff1d(np.arange(nodes), np.r_[train, valid])]
        indptr, indices = graph.array("indptr"), graph.array("indices")
        edges = np.stack([indices, np.repeat(np.arange(nodes, dtype=np.int32), np.diff(indptr))])
        members = {
            "edge_index": edges,
            "num_nodes": nodes,
            "x": graph.array("x"),
            "y": graph.array("y"),
        }
    members |= dict(zip(("train_idx", "valid_idx", "test_idx"), parts, strict=True))
    np.savez(path, **members)
    return path


def trained(data: str, model: str, codec: str, args: argparse.Namespace, tier: float = 0.0) -> dict:
    """The run's summary."""
    recipe, _, _, own = DATA[data]
    sets = [f"features.codec={codec}", f"train.model={model}", f"train.epochs={args.epochs}"]
    sets += [
        f"train.ingredients={args.seeds}",
        "train.vary=1.0",
        "soup.method=best",
        "infer.full_graph=false",
    ]
    sets += [
        pair.format(shared=args.shared, made=made(Path(args.runs), data)) for pair in own
    ] + args.extra
    sets += (
        [f"features.tier_share={tier}", f"features.tier_bytes={args.tier_bytes}"] if tier else []
    )
    runs = Path(args.runs) / (f"{data}-{model}-{codec}" + f"-tier{tier:g}" * bool(tier))
    command = [
        sys.executable,
        "-m",
        "stockpot.cli",
        "run",
        recipe,
        "--store",
        args.store,
        "--runs",
        str(runs),
    ]
    for pair in sets:
        command += ["--set", pair]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((runs / Path(recipe).stem / "summary.json").read_text())


def points(summary: dict) -> list[float]:
    return [100 * single["test_accuracy"] for single in summary["train"]["ingredients"]]


def compared(data: str, model: str, args: argparse.Namespace) -> list[dict]:
    _, nodes, columns, _ = DATA[data]
    exact = points(trained(data, model, "fp32", args))
    sides = [
        (f"rq{stages_of(nodes, columns, smaller)}", smaller, allowed, 0.0)
        for smaller, allowed in TARGETS
    ]
    if args.codecs:
        sides = [(codec, *TARGETS[0], 0.0) for codec in args.codecs]
    if args.tier:
        sides += [(*side, args.tier) for *side, _ in sides]
    rows = []
    for codec, least, most, tier in sides:
        summary = trained(data, model, codec, args, tier)
        coded, facts = points(summary), summary["stages"]["quantize"]
        lost = [a - b for a, b in zip(exact, coded, strict=True)]
        error = statistics.stdev(lost) / math.sqrt(len(lost)) if len(lost) > 1 else float("nan")
        ratio = facts["compression_ratio"]
        smaller, allowed = next(((s, a) for s, a in reversed(TARGETS) if ratio >= s), (least, most))
        title = f"{codec} + rq{args.tier_bytes} of {100 * tier:g} %" if tier else codec
        print(
            f"| {data} | {model} | {title} | {ratio:.1f} | {statistics.mean(exact):.2f} | "
            f"{statistics.mean(coded):.2f} "
            f"| {statistics.mean(lost):+.2f} ± {error:.2f} | {allowed} |",
            flush=True,
        )
        rows.append(
            {
                "what": f"test accuracy lost by {model}, {title}, {ratio:.1f} times smaller, "
                f"{args.epochs} epochs",
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["physics"], choices=DATA)
    parser.add_argument("--models", nargs="+", default=["gcn", "sage"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--codecs", nargs="+", help="these instead of residual codes 30 and 60 times smaller"
    )
    parser.add_argument(
        "--tier", type=float, default=0.0, help="features.tier_share to compare with none"
    )
    parser.add_argument("--tier-bytes", type=int, default=8)
    parser.add_argument(
        "--set", action="append", default=[], dest="extra", help="recipe override, of both sides"
    )
    parser.add_argument("--shared", default="../shared/data", help="folder of graphs not in here")
    parser.add_argument("--store", default="runs/store")
    parser.add_argument("--runs", default="runs/quantize_accuracy")
    args = parser.parse_args()
    out = Path("runs/bench/quantize_accuracy.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print("| data | model | codec | times smaller | fp32 | coded | points lost | allowed |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows: list[dict] = []
    for data in args.data:
        for model in args.models:
            rows += compared(data, model, args)
            out.write_text(
                json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1)
            )


if __name__ == "__main__":
    main()
