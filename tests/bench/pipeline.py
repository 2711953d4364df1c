"""The whole pipeline on real graphs, and how it grows: seconds, memory and bytes of every stage,
beside the projection.

    python -m tests.bench.pipeline  # embedded WordNet, and what lies in ../shared/data
    python -m tests.bench.pipeline --only real --graphs wordnet physics
    python -m tests.bench.pipeline --only growth  # synthetic graphs of 10^5 to 10^7 stored edges
    python -m tests.bench.pipeline --only bytes  # bytes a node and an edge of every stage, fitted
    python -m tests.bench.pipeline --only full  # 2.4M nodes, 62M stored edges, within 6 GiB
    python -m tests.bench.pipeline --full                         # all of them

Every artifact is built anew, by the command users type. The projection is what `stockpot plan` says
before anything is built, from counts alone; measured memory is what each task's process took above
its start. Graphs without published features get seeded random ones of 128 columns: good for speed,
not for accuracy. Rows go to runs/bench/pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

SHARED = Path("../shared/data")
GRAPHS = {
    "wordnet": ("wordnet", 128),
    "physics": (SHARED / "coauthor_physics.npz", 128),
    "computers": (SHARED / "amazon_computers.npz", 0),
    "debian": (SHARED / "debian12_packages.npz", 128),
    "arxiv topology": (SHARED / "ogbn_arxiv_nofeat.npz", 0),
    "flickr topology": (SHARED / "flickr_saint_nofeat.npz", 0),
}
"""Source and `features.reduce` of each graph."""

GROWTH = [(nodes, 10 * nodes) for nodes in (10_000, 62_500, 125_000, 250_000, 500_000, 1_000_000)]
FULL = (2_400_000, 62_000_000)
GROWTH_LIMIT = 2.3
SHAPES = [
    (50_000, 2_000_000),
    (200_000, 1_000_000),
    (200_000, 4_000_000),
    (400_000, 2_000_000),
    (400_000, 8_000_000),
    (800_000, 4_000_000),
]
"""Nodes and stored edges whose number differs by node, so that what a node and what an edge takes
can be told apart."""
LARGE = {"papers100M": (111_059_956, 3_228_124_712), "MAG240M": (121_751_666, 2_593_241_212)}
"""Nodes and edges (both directions) of graphs only planned: MAG240M's papers and citations."""
STAGES = (
    "ingest",
    "split",
    "partition",
    "quantize",
    "influence",
    "order",
    "pack",
    "train",
    "soup",
    "infer",
)


def with_features(path: Path, folder: Path) -> Path:
    """The graph with seeded random features where it has none."""
    with np.load(path) as z:
        members = {name: z[name] for name in z.files}
    if any(name == "x" or name.startswith("x_") for name in members):
        return path
    out = folder / path.name
    x = np.random.default_rng(0).standard_normal((int(members["num_nodes"]), 128), np.float32)
    np.savez(out, x=x, **members)
    return out


def stockpot(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stockpot.cli", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"stockpot {' '.join(words)}: exit status {done.returncode}\n{done.stderr[-2000:]}"
        )
    return done.stdout


def build(
    source: str, reduce: int, targets: list[str], sets: list[str], folder: Path
) -> list[dict]:
    """One row an artifact, built in an empty store: what it took and what was projected."""
    recipe = folder / "bench.toml"
    recipe.write_text(f'[dataset]\nsource = "{source}"\n\n[features]\nreduce = {reduce}\n')
    where = ["--store", str(folder / "store"), "--runs", str(folder / "runs")]
    options = [word for pair in sets for word in ("--set", pair)]
    plan = json.loads(stockpot("plan", str(recipe), *targets, *where, *options, "--json"))
    projected = {node["node"]: node for node in plan["nodes"]}
    started = time.perf_counter()
    stockpot("run", str(recipe), *targets, *where, *options)
    wall = time.perf_counter() - started
    run = json.loads((folder / "runs/bench/run.json").read_text())
    rows = []
    for node, entry in run["artifacts"].items():
        path = folder / "store/objects" / entry["stage"] / entry["key"] / "manifest.json"
        made = json.loads(path.read_text())
        rows.append(
            {
                "node": node,
                "stage": entry["stage"],
                "seconds": made["seconds"],
                "peak_bytes": made["peak_bytes"],
                "projected_bytes": projected[node]["peak_bytes"],
                "bytes_written": made["bytes_written"],
                "facts": made["facts"],
                "wall": wall,
            }
        )
    return rows


def streamed(run: Path, seconds: float = 3.0) -> dict[str, float]:
    """Training records a second through `open_batches`, and a raw sequential read of the same
    files, GB a second."""
    from stockpot import open_batches

    batches = open_batches(str(run), split="train", shuffle=True, seed=0, adj="norm")
    records = edges = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        for batch in batches:
            records += 1
            edges += batch.num_nodes
    took = time.perf_counter() - started
    return {"records_per_second": records / took, "rows_per_second": edges / took}


def by_stage(rows: list[dict]) -> list[dict]:
    """Artifacts of one stage together: seconds and bytes summed, memory of the largest and its own
    projection."""
    out = []
    for stage in STAGES:
        of = [row for row in rows if row["stage"] == stage]
        if not of:
            continue
        worst = max(of, key=lambda row: row["peak_bytes"] / max(1, row["projected_bytes"] or 1))
        out.append({
            "stage": stage, "seconds": sum(row["seconds"] for row in of),
            "bytes_written": sum(row["bytes_written"] for row in of),
            "peak_bytes": worst["peak_bytes"], "projected_bytes": worst["projected_bytes"],
        })  # fmt: skip
    return out


def real(names: list[str], epochs: int) -> list[dict]:
    rows = []
    mega = 1e6
    print(
        "| graph | stage | seconds | peak MB | projected MB | measured / projected | MB written |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in names:
        source, reduce = GRAPHS[name]
        with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as temporary:
            folder = Path(temporary)
            if isinstance(source, Path):
                if not source.is_file():
                    print(f"| {name} | {source} is not there: left out | | | | | |")
                    continue
                source = f"npz:{with_features(source, folder).absolute()}"
            sets = [f"train.epochs={epochs}", "train.ingredients=1", "train.schedule=constant"]
            made = build(source, reduce, [], sets, folder)
            for row in by_stage(made):
                share = row["peak_bytes"] / row["projected_bytes"]
                print(
                    f"| {name} | {row['stage']} | {row['seconds']:.2f} | "
                    f"{row['peak_bytes'] / mega:.0f} "
                    f"| {row['projected_bytes'] / mega:.0f} | {share:.2f} | "
                    f"{row['bytes_written'] / mega:.1f} |",
                    flush=True,
                )
                rows.append(entry("peak memory within the projection", f"{name}: "
                f"{row['stage']}", row["peak_bytes"],
                                  row["projected_bytes"], "bytes", 1.0))  # fmt: skip
                rows.append(
                    entry("stage", f"{name}: {row['stage']}", row["seconds"], None, "s", None)
                )
            summary = json.loads((folder / "runs/bench/summary.json").read_text())
            epoch = summary["train"]["ingredients"][0]["seconds_per_epoch"]
            speed = streamed(folder / "runs/bench")
            rows.append(entry("training epoch", name, epoch, None, "s", None))
            rows.append(
                entry(
                    "records streamed", name, speed["records_per_second"], None, "records/s", None
                )
            )
            print(
                f"| {name} | an epoch {epoch:.2f} s; {speed['records_per_second']:.0f} records, "
                f"{speed['rows_per_second'] / mega:.2f}M rows a second streamed | | | | | |",
                flush=True,
            )
    return rows


def entry(
    what: str, dataset: str, ours: float, peer: float | None, unit: str, target: float | None
) -> dict:
    """A row as every benchmark writes it; `peer` here is a limit."""
    ratio = None if peer is None else peer / max(ours, 1e-9)
    met = None if target is None or ratio is None else ratio >= target
    return {
        "what": what,
        "dataset": dataset,
        "ours": ours,
        "peer": None if peer is None else "limit",
        "peer_value": peer,
        "unit": unit,
        "threads": os.cpu_count(),
        "n": 1,
        "ratio": ratio,
        "target": target,
        "met": met,
    }


def synthetic(nodes: int, edges: int, features: int = 64) -> str:
    return (
        f"synthetic:communities?nodes={nodes}&edges={edges}&features={features}&classes=16&seed=0"
    )


def growth(sizes: list[tuple[int, int]], repeats: int) -> list[dict]:
    """Seconds and memory up to packed records, on graphs of one shape."""
    rows: list[dict] = []
    made: dict[tuple[int, int], list[dict]] = {}
    seconds: dict[tuple[int, int], float] = {}
    print(
        "| nodes | stored edges | seconds of all stages | wall s | growth | worst measured / "
        "projected |"
    )
    print("|---|---|---|---|---|---|")
    before = None
    for size in sizes:
        took = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as temporary:
                found = build(synthetic(*size), 0, ["pack", "order"], [], Path(temporary))
            took.append(sum(row["seconds"] for row in found))
        made[size], seconds[size] = by_stage(found), statistics.median(took)
        worst = max(row["peak_bytes"] / row["projected_bytes"] for row in made[size])
        factor = ""
        if before is not None:
            doublings = np.log2(size[1] / before[1])
            each = float((seconds[size] / seconds[before]) ** (1 / doublings))
            factor = f"{each:.2f} per doubling"
            if before[1] >= 500_000:  # smaller graphs take constants only
                rows.append(
                    entry("twice the edges", f"{size[1]} edges", each, GROWTH_LIMIT, "x", 1.0)
                )
        print(
            f"| {size[0]} | {size[1]} | {seconds[size]:.1f} | {found[0]['wall']:.1f} | {factor} | "
            f"{worst:.2f} |",
            flush=True,
        )
        before = size
        rows += [
            entry("peak memory within the projection", f"{size[1]} edges: "
            f"{row['stage']}", row["peak_bytes"],
                  row["projected_bytes"], "bytes", 1.0) for row in made[size]
        ]  # fmt: skip
    return rows


def fitted(points: list[tuple[int, int]], values: list[float]) -> tuple[float, float, float]:
    """(base, by node, by edge), none below 0, of the least squares fit of relative errors."""
    weights = 1.0 / np.maximum(1.0, np.array(values, float))
    terms = np.array([(1.0, nodes, edges) for nodes, edges in points]) * weights[:, None]
    found, _ = nnls(terms, np.ones(len(points)))
    return float(found[0]), float(found[1]), float(found[2])


def state_bytes(shapes: list[tuple[int, int]]) -> list[dict]:
    """Peak memory of every stage fitted by nodes and edges, beside what `plan` reckons with, here
    and far beyond."""
    rows: list[dict] = []
    made: dict[tuple[int, int], list[dict]] = {}
    for shape in shapes:
        with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as temporary:
            made[shape] = by_stage(
                build(synthetic(*shape), 0, ["pack", "order"], [], Path(temporary))
            )
    print(
        "\n| stage | measured: base MB, bytes a node, bytes a stored edge | projected: the same |",
        end="",
    )
    print(
        " worst measured / projected | "
        + " | ".join(f"fit at {name}'s size, GB" for name in LARGE)
        + " |"
    )
    print("|---|---|---|---|" + "---|" * len(LARGE))
    for stage in [row["stage"] for row in made[shapes[0]]]:
        at = [next(row for row in made[shape] if row["stage"] == stage) for shape in shapes]
        ours = fitted(shapes, [row["peak_bytes"] for row in at])
        plan = fitted(shapes, [row["projected_bytes"] for row in at])
        worst = max(row["peak_bytes"] / row["projected_bytes"] for row in at)
        far = [ours[0] + ours[1] * nodes + ours[2] * edges for nodes, edges in LARGE.values()]
        print(
            f"| {stage} | {ours[0] / 1e6:.0f}, {ours[1]:.1f}, {ours[2]:.1f} "
            f"| {plan[0] / 1e6:.0f}, {plan[1]:.1f}, {plan[2]:.1f} | {worst:.2f} | "
            + " | ".join(f"{value / 1e9:.1f}" for value in far) + " |",
            flush=True,
        )  # fmt: skip
        rows.append(entry("worst memory of its projection", stage, worst, 1.0, "x", 1.0))
        rows.append(entry("fitted bytes a node", stage, ours[1], plan[1], "bytes/node", None))
        rows.append(
            entry("fitted bytes a stored edge", stage, ours[2], plan[2], "bytes/edge", None)
        )
    return rows


def full(budget: str) -> list[dict]:
    """2.4 million nodes and 62 million undirected edges to packed records, inside a memory
    budget."""
    with tempfile.TemporaryDirectory(
        prefix="stockpot-bench-", dir=os.environ.get("STOCKPOT_BENCH_DIR")
    ) as temporary:
        sets = [f'resources.memory="{budget}"']
        found = build(synthetic(*FULL, features=32), 0, ["pack", "order"], sets, Path(temporary))
    for row in by_stage(found):
        peak, projected, written = (
            row[name] / 1e6 for name in ("peak_bytes", "projected_bytes", "bytes_written")
        )
        print(
            f"| {row['stage']} | {row['seconds']:.0f} s | {peak:.0f} of {projected:.0f} MB | "
            f"{written:.0f} MB |"
        )
    worst = max(row["peak_bytes"] for row in found)
    print(f"wall {found[0]['wall']:.0f} s, largest task {worst / 2**30:.2f} GiB")
    return [
        entry("62M undirected edges to packed records", "synthetic", worst, 6 * 2**30, "bytes", 1.0)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", nargs="+", default=list(GRAPHS), choices=list(GRAPHS))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", choices=["real", "growth", "bytes", "full"])
    parser.add_argument(
        "--repeats", type=int, default=1, help="builds of each synthetic graph; the median counts"
    )
    parser.add_argument(
        "--full", action="store_true", help="also the largest graph, in the budget of --memory"
    )
    parser.add_argument("--memory", default="6GiB")
    args = parser.parse_args()
    rows: list[dict] = []
    if args.only in (None, "real"):
        rows += real(args.graphs, args.epochs)
    if args.only in (None, "growth"):
        rows += growth(GROWTH, args.repeats)
    if args.only in (None, "bytes"):
        rows += state_bytes(SHAPES)
    if args.full or args.only == "full":
        rows += full(args.memory)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/pipeline.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
