"""What the search for shared partial sums finds, what it costs, and how cheaply it says no.

    python -m tests.bench.hag  # whole graphs, and packed records of WordNet and arXiv
    python -m tests.bench.hag --graphs collab        # some of them
    python -m tests.bench.hag --only batches --full  # packed records of Physics and Computers too

Graphs are undirected, without self-loops (COLLAB's 2,837 are removed) and without features; "+ I"
adds the diagonal, as models do that aggregate a node itself. Additions and reads are those of the
plain CSR for each one left, at aggregation nodes for 1/4, 1/2 and 1 of the nodes, counted as they
are found (`tests.hag_tools.curve`), and after nodes of one consumer are dissolved and the rest
filtered. Each search runs in a process of its own, two threads; compilation is excluded, the load
of the machine is not: CPU seconds stand beside the wall clock. Peak memory is that of the whole
process.

For packed records the peers are push PPR of the record's outputs, in turns, and all that
`influence` does for the outputs of the split: that, grouping and writing; CPU seconds of one
thread. "stage hag": all that stage does, six records at most and the rates of this machine. Rows go
to runs/bench/hag.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHARED = Path("../shared/data")
GRAPHS = {
    "collab": "tu_collab",
    "imdb-binary": "tu_imdb_binary",
    "proteins": "tu_proteins",
    "chameleon": "chameleon",
    "wordnet": "wordnet30_synsets",
    "arxiv": "ogbn_arxiv_nofeat",
    "computers": "amazon_computers",
    "physics": "coauthor_physics",
}
RECORDS = {"wordnet": 0, "arxiv": 0, "physics": 32, "computers": 32}
"""Graphs whose packed records are searched, and `features.reduce` of each; those without features
get random ones."""

SPARSE = ("wordnet", "arxiv")
SHARES = (0.25, 0.5, 1.0)
FULL_GRAPHS = ("collab",)  # five searches only with --full
KEEPS = (0, 4, 16)
SECONDS, BYTES, FEWER, QUARTER, SHARE_OF_INFLUENCE = 60.0, 6e9, 10.0, 3.0, 0.2
ROW_BYTES = (4 * 64,)
RATES = (3e-10, 5e-12, 3.6e-9, 2e-11, 0.0)
"""Seconds, of `stages.hag.product_cost.Rates`, about those of one core here: they decide what the
floor lets be searched."""


def csr(name: str, *, loops: bool) -> tuple[np.ndarray, np.ndarray]:
    from tests.bench.influence import load

    a, _ = load(SHARED / f"{GRAPHS[name]}.npz")
    if loops:
        a.setdiag(1)
        a.sort_indices()
    return a.indptr.astype(np.int64), a.indices.astype(np.int32)


def one(name: str, loops: bool, threads: int, runs: int) -> dict:
    """What one process finds: curve, shapes, seconds of each run, peak bytes."""
    from stockpot.stages.hag.search.search import search
    from stockpot.stages.hag.search.shape import Shape, outline
    from tests.hag_tools import curve

    indptr, indices = csr(name, loops=loops)
    search(np.arange(5) * 4, np.tile(np.arange(4), 4))  # compiles
    wall, cpu = [], []
    for _ in range(runs):
        started, used = time.perf_counter(), time.process_time()
        merges = search(indptr, indices, threads=threads)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    nodes = len(indptr) - 1
    adds, reads = curve(merges)
    at = {share: min(len(adds) - 1, int(share * nodes)) for share in SHARES}
    shapes = [outline(merges, Shape(keep=keep, depth=8)) for keep in KEEPS]
    found = outline(merges, Shape(keep=-1))
    twins = len(adds) - 1 - len(merges.pairs)
    return {
        "nodes": nodes, "entries": len(indices), "wall": wall, "cpu": cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "twins": merges.plain_reads / max(1, reads[twins]),
        "adds": [merges.plain_adds / adds[at[share]] for share in SHARES],
        "reads": [merges.plain_reads / reads[at[share]] for share in SHARES],
        "all": [len(adds) - 1, merges.plain_adds / max(1, adds[-1]), found.nodes],
        "shapes": [[merges.plain_reads / s.reads, s.nodes / nodes, s.levels] for s in shapes],
    }  # fmt: skip


def child(name: str, loops: bool, threads: int, runs: int) -> dict:
    words = [
        name,
        "--loops" if loops else "--no-loops",
        "--threads",
        str(threads),
        "--runs",
        str(runs),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.hag", "--one", *words], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def row(
    what: str,
    dataset: str,
    ours: float,
    peer: str,
    value: float,
    unit: str,
    threads: int,
    n: int,
    ratio: float,
    target: float | None,
) -> dict:
    return {
        "what": what,
        "dataset": dataset,
        "ours": ours,
        "peer": peer,
        "peer_value": value,
        "unit": unit,
        "threads": threads,
        "n": n,
        "ratio": ratio,
        "target": target,
        "met": None if target is None else ratio >= target,
    }


def graphs(names: list[str], threads: int, runs: int, full: bool) -> list[dict]:
    rows = []
    print("| graph | twins | adds (reads) at 1/4 | 1/2 | 1 of the nodes | all: adds, nodes found "
    "and left | "
          "reads, nodes, levels filtered by 0 | by 4 | by 16 | s | CPU s | MB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        if not (SHARED / f"{GRAPHS[name]}.npz").exists():
            print(f"{name}: {SHARED / GRAPHS[name]}.npz is not there", file=sys.stderr)
            continue
        for loops in (False, True):
            n = runs if full or name not in FULL_GRAPHS else 1
            r = child(name, loops, threads, n)
            title = f"{name} + I" if loops else name
            curve = " | ".join(
                f"{a:.2f} ({b:.2f})" for a, b in zip(r["adds"], r["reads"], strict=True)
            )
            shapes = " | ".join(f"{a:.2f}, {b:.2f}, {k}" for a, b, k in r["shapes"])
            wall, cpu = statistics.median(r["wall"]), statistics.median(r["cpu"])
            found, adds, left = r["all"]
            total = f"{adds:.2f}, {found / r['nodes']:.2f}, {left / r['nodes']:.2f}"
            print(f"| {title} | {r['twins']:.2f} | {curve} | {total} | {shapes} | {wall:.2f} | "
            f"{cpu:.2f} "
                  f"| {r['peak_bytes'] / 1e6:.0f} |", flush=True)  # fmt: skip
            paper = name == "collab" and not loops
            for share, ratio in zip(SHARES, r["adds"], strict=True):
                target = {0.25: QUARTER, 1.0: FEWER}.get(share) if paper else None
                what = f"additions with {share:g} aggregation nodes a node"
                rows.append(
                    row(
                        what,
                        title,
                        1 / ratio,
                        "plain CSR",
                        1.0,
                        "of plain",
                        threads,
                        n,
                        ratio,
                        target,
                    )
                )
            for share, ratio in zip(SHARES, r["reads"], strict=True):
                what = f"reads with {share:g} aggregation nodes a node"
                rows.append(
                    row(
                        what,
                        title,
                        1 / ratio,
                        "plain CSR",
                        1.0,
                        "of plain",
                        threads,
                        n,
                        ratio,
                        None,
                    )
                )
            rows.append(
                row(
                    "search",
                    title,
                    wall,
                    "limit",
                    SECONDS,
                    "s",
                    threads,
                    n,
                    SECONDS / wall,
                    1.0 if paper else None,
                )
            )
            rows.append(
                row(
                    "search, CPU",
                    title,
                    cpu,
                    "limit",
                    SECONDS,
                    "s",
                    threads,
                    n,
                    SECONDS / cpu,
                    None,
                )
            )
            peak = r["peak_bytes"]
            rows.append(
                row(
                    "peak memory",
                    title,
                    peak,
                    "limit",
                    BYTES,
                    "bytes",
                    threads,
                    n,
                    BYTES / peak,
                    1.0 if paper else None,
                )
            )
    return rows


def batches(names: list[str], runs: int) -> list[dict]:
    from tests.bench.pipeline import stockpot, with_features

    rows = []
    print(
        "\n| packed records | rows, entries | possible gain | predicted | searched "
        "| us an output: HAG | push PPR | HAG / PPR | influence | HAG / influence | stage hag |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as kept:
            folder = Path(kept)
            recipe = folder / "bench.toml"
            file = with_features(SHARED / f"{GRAPHS[name]}.npz", folder).resolve()
            source = "wordnet" if name == "wordnet" else f"npz:{file}"
            text = f'[dataset]\nsource = "{source}"\n\n[features]\nreduce = {RECORDS[name]}\n'
            recipe.write_text(text + ('codec = "fp32"\n' if name == "arxiv" else ""))
            where = ["--store", str(folder / "store"), "--runs", str(folder / "runs")]
            stockpot("run", str(recipe), "pack", *where)
            rows += records(name, folder / "runs/bench", runs)
    return rows


def stages_us(run: Path, runs: int) -> tuple[float, float]:
    """CPU microseconds an output of split train of the whole stages `influence` and `hag`, in this
    process."""
    from stockpot.locate import artifact_of
    from stockpot.stages.hag import stage as hag
    from stockpot.stages.influence import batch_params as params
    from stockpot.stages.influence import stage
    from tests.memory import run_stage

    made = artifact_of(run, "influence:train")
    graph, spent = artifact_of(run, "ingest"), []
    for node, described, kind, inputs in (
        (
            "influence:train",
            stage.STAGE,
            params.Params,
            {"graph": graph, "split": artifact_of(run, "split")},
        ),
        ("hag", hag.STAGE, hag.Params, {"graph": graph, "records": made}),
    ):
        taken = []
        for _ in range(runs + 1):
            with tempfile.TemporaryDirectory() as folder:
                started = time.process_time()
                run_stage(
                    described, kind(**artifact_of(run, node).manifest["params"]), inputs, folder
                )
                taken.append(time.process_time() - started)
        spent.append(statistics.median(taken[1:]) / made.facts["outputs"] * 1e6)
    return spent[0], spent[1]


def records(name: str, run: Path, runs: int) -> list[dict]:
    """`find` on packed records, without and with the diagonal, beside push PPR of their outputs."""
    from stockpot import open_records
    from stockpot.stages.hag.hag_choice import find
    from stockpot.stages.hag.product_cost import Rates
    from stockpot.stages.influence.push import push_top, workspace
    from stockpot.stages.influence.walk import walk
    from tests.bench.influence import ALPHA, EPS, TOP_K

    indptr, indices = csr(name, loops=False)
    constants = walk(indptr, None, self_loops=True, alpha=ALPHA, eps=EPS)
    space, none = workspace(constants.threshold), np.empty(0, np.float32)
    position = np.arange(len(indptr) - 1, dtype=np.int32)
    packed, (influence, whole) = open_records(run, "train"), stages_us(run, runs)
    picked = [packed[i] for i in range(0, len(packed), max(1, len(packed) // 8))]
    out = []
    for loops in (False, True):
        ratios, ours, peer, found = [], [], [], []
        for turn in range(runs + 1):
            for record in picked:
                outputs = len(record.y)
                seeds = np.array(record.n_id[:outputs], np.int32)
                ptr, columns = (
                    np.array(v, t)
                    for v, t in ((record.indptr, np.int64), (record.indices, np.int32))
                )
                if loops:
                    ptr, columns = with_loops(ptr, columns)
                top, pair = (np.empty((outputs, TOP_K), np.int32) for _ in range(2))
                values = [np.empty((outputs, TOP_K), np.float32) for _ in range(2)]
                t = time.process_time()
                choice = find(ptr, columns, rates=Rates(*RATES), row_bytes=ROW_BYTES)
                u = time.process_time()
                push_top(indptr, indices, none, constants.spread, constants.settle, seeds, ALPHA,
                         position, *space, top, values[0], pair, values[1])  # fmt: skip
                v = time.process_time()
                if turn:
                    ours.append((u - t) / outputs * 1e6)
                    peer.append((v - u) / outputs * 1e6)
                    ratios.append((v - u) / (u - t))
                    found.append((choice.possible, choice.predicted, len(ptr) - 1, len(columns)))
        possible, predicted, size, entries = np.mean(found, 0)
        searched = np.mean([p > 1 for _, p, _, _ in found])
        mine, theirs, ratio = (
            statistics.median(ours),
            statistics.median(peer),
            statistics.median(ratios),
        )
        title = f"{name}{' + I' if loops else ''}, packed records"
        print(f"| {title} | {size:.0f}, {entries:.0f} | {possible:.2f} | {predicted:.2f} | "
        f"{searched:.0%} | {mine:.2f} "
              f"| {theirs:.2f} | {1 / ratio:.0%} | {influence:.2f} | {mine / influence:.0%} "
              f"| {whole:.2f} |", flush=True)  # fmt: skip
        target = 1 / SHARE_OF_INFLUENCE if name in SPARSE else None
        for other, value, times in (
            ("push PPR of its outputs", theirs, ratio),
            ("influence of its outputs", influence, influence / mine),
        ):
            out.append(
                row(
                    "HAG or none for a record",
                    title,
                    mine,
                    other,
                    value,
                    "us/output",
                    1,
                    len(ours),
                    times,
                    target,
                )
            )
        what = "stage hag: rates of this machine, some records"
        out.append(
            row(
                what,
                title,
                whole,
                "influence",
                influence,
                "us/output",
                1,
                runs,
                influence / whole,
                target,
            )
        )
    return out


def with_loops(ptr: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    both = np.r_[rows, np.arange(len(ptr) - 1)], np.r_[columns, np.arange(len(ptr) - 1)]
    return ptr + np.arange(len(ptr)), both[1][np.lexsort((both[1], both[0]))].astype(np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["graphs", "batches"])
    parser.add_argument("--graphs", nargs="+", choices=GRAPHS, default=list(GRAPHS))
    parser.add_argument("--one", choices=GRAPHS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--loops", action=argparse.BooleanOptionalAction, default=False, help=argparse.SUPPRESS
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--full",
        action="store_true",
        help="five searches of COLLAB, records of Physics and Computers",
    )
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.loops, args.threads, args.runs)))
        return
    rows = [] if args.only == "batches" else graphs(args.graphs, args.threads, args.runs, args.full)
    if args.only != "graphs":
        rows += batches(
            [name for name in RECORDS if name in args.graphs and (args.full or name in SPARSE)],
            args.runs,
        )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/hag.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
