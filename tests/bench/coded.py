"""First layer on codes, training epochs on packed codes, and the bytes an epoch reads; alternating
runs.

    python -m tests.bench.coded  # tables against decode + GEMM, forward and gradient
    python -m tests.bench.coded --costs  # constants of stages/codec/coded_rows.py
    python -m tests.bench.coded --epochs  # epochs on packed codes against gathered fp32

The peer of the layer decodes with this repository's own kernel and multiplies with torch; both
sides on one thread, CPU seconds. Rows go to runs/bench/coded.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from stockpot.stages.codec.coded_rows import Coded, Part, Tables
from stockpot.stages.codec.lookup import Lookup
from stockpot.stages.codec.table_sum import table_sum
from tests.bench.coded_epochs import measure

ROWS, DIM, OUT = 7000, 128, 256
TARGET = 2.0


def tables_of(kind: str, count: int, dim: int) -> Tables:
    """Random tables: pq, side by side; rq, each over all columns."""
    rng = np.random.default_rng(0)
    width = dim if kind == "rq" else dim // count
    lo = np.zeros(count, np.int64) if kind == "rq" else width * np.arange(count)
    offset = 256 * width * np.arange(count)
    values = rng.normal(size=256 * width * count).astype(np.float32)
    return Tables.of(Lookup(dim, 1, 256, lo, lo + width, offset, values))


def alternating(sides: dict, runs: int) -> dict[str, list[float]]:
    """CPU seconds of each run, by side; the first turn compiles."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(runs + 2):
        for name, call in sides.items():
            started = time.process_time()
            call()
            if turn > 1:
                times[name].append(time.process_time() - started)
    return times


def layer(kind: str, count: int, runs: int) -> list[dict]:
    """Rows of the table for one code."""
    tables = tables_of(kind, count, DIM)
    codes = torch.from_numpy(
        np.random.default_rng(1).integers(0, 256, (ROWS, count), dtype=np.uint8)
    )
    x = Coded((Part(codes, tables),))
    weight, grad = torch.randn(OUT, DIM, requires_grad=True), torch.randn(ROWS, OUT)

    def backward(product) -> None:
        weight.grad = None
        product().backward(grad)

    def forward(product) -> None:
        with torch.no_grad():
            product()

    def ours():
        return x.times(weight)

    def peer():
        return functional.linear(x.decoded(), weight)

    assert torch.allclose(ours(), peer(), atol=1e-2)
    rows = []
    for what, run in (("forward", forward), ("forward and gradient", backward)):
        times = alternating(
            {"ours": lambda run=run: run(ours), "peer": lambda run=run: run(peer)}, runs
        )
        ratio = statistics.median(p / o for o, p in zip(times["ours"], times["peer"], strict=True))
        mine, theirs = (1e3 * statistics.median(times[name]) for name in ("ours", "peer"))
        print(
            f"| {kind}{count} | {what} | {mine:.2f} | {theirs:.2f} | {ratio:.1f} | {TARGET:.0f} |",
            flush=True,
        )
        rows.append(
            {
                "what": f"first layer on codes, {what}",
                "dataset": f"{kind}{count}, {ROWS} rows, {DIM} -> {OUT}",
                "ours": mine,
                "peer": "decode + GEMM",
                "peer_value": theirs,
                "unit": "ms",
                "threads": 1,
                "n": runs,
                "ratio": ratio,
                "target": TARGET if count <= 8 else None,
                "met": ratio >= TARGET if count <= 8 else None,
            }
        )
    return rows


def costs(runs: int) -> None:
    """Nanoseconds and multiply-adds of what `stockpot.stages.codec.coded_rows` counts."""
    weight, dense = torch.randn(OUT, DIM), torch.randn(ROWS, DIM)
    tables = tables_of("pq", 8, DIM)
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (ROWS, 8), dtype=np.uint8))
    projected = tables.projected(weight).requires_grad_()
    grad = torch.randn(ROWS, OUT)

    def both() -> None:
        projected.grad = None
        table_sum(codes, projected).backward(grad)

    sides = {
        "product": lambda: functional.linear(dense, weight),
        "read": lambda: table_sum(codes, projected.detach()),
        "read and add": both,
        "decode": lambda: tables.decoded(codes),
    }
    found = {name: statistics.median(values) for name, values in alternating(sides, runs).items()}
    unit = found["product"] / (ROWS * DIM * OUT)
    elements = ROWS * 8 * OUT
    print(f"multiply-add {1e12 * unit:.1f} ps; READ {found['read'] / elements / unit:.1f}, "
          f"ADD {(found['read and add'] - found['read']) / elements / unit:.1f}, "
          f"a decoded element {found['decode'] / (ROWS * DIM) / unit:.1f} "
          f"multiply-adds")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("--epochs", action="store_true")
    parser.add_argument(
        "--nodes", type=int, default=280_000, help="of the graph whose epochs are timed"
    )
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.costs:
        costs(args.runs)
    print(
        f"| code | {ROWS} rows, {DIM} -> {OUT} | tables, ms | decode + GEMM, ms | ratio | target |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for kind, count in (("pq", 4), ("pq", 8), ("pq", 16), ("rq", 2), ("rq", 4), ("rq", 8)):
        rows += layer(kind, count, args.runs)
    if args.epochs:
        print(
            "\n| graph | model | codes | page cache | packed codes, s | fp32 gather, s | ratio | "
            "MB read | MB read |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for model, hidden, layers, dim, codec in (
            ("sage", 256, 2, 128, "pq4"),
            ("gat", 256, 2, 768, "pq24"),
        ):
            with tempfile.TemporaryDirectory(dir="runs") as folder:
                options = {
                    "nodes": args.nodes,
                    "dim": dim,
                    "codec": codec,
                    "model": model,
                    "hidden": hidden,
                }
                rows += measure(Path(folder), layers=layers, runs=5, **options)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/coded.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
