"""What shared prefixes save an LSTM over neighbours: forward and backward with the prefix tree,
without, and by torch.

    python -m tests.bench.hag_sequence  # PROTEINS, IMDB-BINARY, and packed records
    python -m tests.bench.hag_sequence --graphs wordnet --no-torch --packed
    python -m tests.bench.hag_sequence --accuracy  # trains sage-lstm beside sage on Computers

Every row is read by falling degree. "None shared": the same products, each row a chain of its own.
torch: `nn.LSTM` on packed sequences, what torch_geometric's `SAGEConv(aggr="lstm")` would be
without its padding. All in turns on one thread, CPU seconds, medians. A packed record is the first
of split train, all its edges. Rows go to runs/bench/hag_sequence.json.
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
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from stockpot.stages.hag.sequence import Sequences, read_order
from tests.bench.hag import GRAPHS, SHARED, csr, row

PACKED = {"wordnet": 32, "computers": 32}
"""Graphs whose packed records are measured, and `features.reduce` of each."""
ACCURACY = ("sage", "sage-lstm")


def chains(indptr, indices, cols, rank) -> tuple[Sequences, np.ndarray]:
    """(`Sequences` in which nothing is shared: level k holds the rows longer than k, longest first;
    their order)."""
    made = Sequences.__new__(Sequences)
    counts = np.diff(indptr)
    ordered = indices[np.lexsort((rank[indices], np.repeat(np.arange(len(counts)), counts)))]
    order = np.argsort(-counts, kind="stable")
    sizes = [int((counts > level).sum()) for level in range(int(counts.max(initial=0)))]
    starts = np.cumsum([0, *sizes])
    column = np.concatenate(
        [ordered[indptr[order[:size]] + level] for level, size in enumerate(sizes)]
    )
    out = np.full(len(counts), len(indices), np.int64)
    filled = order[: sizes[0]]
    out[filled] = starts[counts[filled] - 1] + np.arange(len(filled))
    made.shape, made.sizes, made.steps, made.plain_steps = (
        (len(counts), cols),
        tuple(sizes),
        len(indices),
        len(indices),
    )
    made.column, made.out = torch.from_numpy(column.astype(np.int64)), torch.from_numpy(out)
    made.parent = [torch.arange(size) for size in sizes[1:]]
    return made, filled


def measure(
    title: str, indptr, indices, cols: int, deg, width: int, runs: int, *, peer: bool
) -> list[dict]:
    rank = read_order(deg)
    started = time.process_time()
    shared = Sequences(indptr, indices, cols, rank)
    building = time.process_time() - started
    alone, filled = chains(indptr, indices, cols, rank)
    torch.manual_seed(0)
    lstm = nn.LSTM(width, width, batch_first=True)
    x = torch.randn(cols, width, requires_grad=True)

    def ours(sequences):
        gates = torch.nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        return sequences.lstm(gates, lstm.weight_hh_l0)

    sizes = torch.tensor(alone.sizes)
    calls = {
        "prefix tree": lambda: ours(shared),
        "none shared": lambda: ours(alone),
    }
    if peer:
        calls["torch"] = lambda: lstm(PackedSequence(x.index_select(0, alone.column), sizes))[1][0][
            0
        ]
    with torch.no_grad():
        found = {name: call() for name, call in calls.items()}
    torch.testing.assert_close(found["prefix tree"], found["none shared"], rtol=1e-4, atol=1e-5)
    if peer:
        torch.testing.assert_close(
            found["prefix tree"][filled], found["torch"], rtol=1e-4, atol=1e-5
        )
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 1):
        for name, call in calls.items():
            started = time.process_time()
            call().sum().backward()
            if turn:
                taken[name].append(time.process_time() - started)
            x.grad = None
            lstm.zero_grad()
    times = {name: statistics.median(values) for name, values in taken.items()}
    mine, saved = times["prefix tree"], shared.plain_steps / max(1, shared.steps)
    cells = " | ".join(
        f"{1e3 * taken:.0f} ({taken / mine:.2f})" for taken in list(times.values())[1:]
    )
    cells += "" if peer else " |"
    size = f"{len(indptr) - 1}, {len(indices)}, {len(shared.sizes)}"
    print(
        f"| {title} | {size} | {width} | {saved:.2f} | {1e3 * mine:.0f} | {cells} | "
        f"{1e3 * building:.0f} |",
        flush=True,
    )
    return [
        row(f"LSTM over neighbours forward and backward, width {width}, {saved:.2f} x fewer "
        f"steps", title, mine, name,
            other, "CPU s", 1, runs, other / mine, None)
        for name, other in times.items()
        if name != "prefix tree"
    ]  # fmt: skip


def records(name: str, width: int, runs: int, *, peer: bool) -> list[dict]:
    """The first packed record of split train."""
    from stockpot import open_records
    from tests.bench.pipeline import stockpot

    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        source = (
            "wordnet" if name == "wordnet" else f"npz:{(SHARED / f'{GRAPHS[name]}.npz').resolve()}"
        )
        (folder / "bench.toml").write_text(
            f'[dataset]\nsource = "{source}"\n[features]\nreduce = {PACKED[name]}\ncodec = "fp32"\n'
        )
        where = ["--store", str(folder / "store"), "--runs", str(folder / "runs")]
        stockpot("run", str(folder / "bench.toml"), "pack:train", *where)
        record = open_records(folder / "runs/bench", "train")[0]
        indptr, indices = np.array(record.indptr, np.int64), np.array(record.indices, np.int64)
        deg = np.array(record.deg, np.int64)
    return measure(
        f"{name}, a packed record", indptr, indices, len(deg), deg, width, runs, peer=peer
    )


def accuracy(args: argparse.Namespace) -> list[dict]:
    """Test accuracy and seconds an epoch of sage-lstm beside sage, the same records and seeds."""
    from tests.bench.pipeline import stockpot

    found = {}
    for model in ACCURACY:
        runs = Path("runs/hag_sequence") / model
        sets = [
            f"train.model={model}",
            f"train.epochs={args.epochs}",
            f"train.ingredients={args.seeds}",
        ]
        sets += [
            "train.vary=1.0",
            "soup.method=best",
            "infer.full_graph=false",
            "features.codec=fp32",
        ]
        sets += [
            f"dataset.source=npz:{SHARED / 'amazon_computers.npz'}",
            "features.reduce=128",
            *args.extra,
        ]
        words = [word for pair in sets for word in ("--set", pair)]
        stockpot("run", "data/computers.toml", "--store", "runs/store", "--runs", str(runs), *words)
        single = json.loads((runs / "computers/summary.json").read_text())["train"]["ingredients"]
        tests = [100 * s["test_accuracy"] for s in single]
        seconds = statistics.median(s["seconds_per_epoch"] for s in single)
        found[model] = (tests, seconds)
        print(f"| {model} | {statistics.mean(tests):.2f} | {', '.join(f'{t:.2f}' for t in tests)} "
        f"| {seconds:.2f} |",
              flush=True)  # fmt: skip
    (ours, s), (theirs, t) = found["sage-lstm"], found["sage"]
    mine, other, n = statistics.mean(ours), statistics.mean(theirs), len(ours)
    return [
        row(
            f"test accuracy, {args.epochs} epochs",
            "computers",
            mine,
            "sage",
            other,
            "%",
            1,
            n,
            mine / other,
            None,
        ),
        row("seconds an epoch of sage-lstm", "computers", s, "sage", t, "s", 1, n, t / s, None),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", nargs="*", choices=GRAPHS, default=["proteins", "imdb-binary"])
    parser.add_argument("--packed", nargs="*", choices=PACKED, default=list(PACKED))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--torch", action=argparse.BooleanOptionalAction, default=True, help="time torch's LSTM too"
    )
    parser.add_argument(
        "--accuracy", action="store_true", help="train sage-lstm and sage on Computers instead"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], dest="extra", help="recipe override, of both models"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    if args.accuracy:
        print("| model | test % | each | s an epoch |\n|---|---|---|---|")
        rows += accuracy(args)
    else:
        print("| graph | rows, entries, longest | width | steps saved | prefix tree ms | none "
        "shared (times) "
              "| torch (times) | building ms |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        for name in args.graphs:
            indptr, indices = csr(name, loops=False)
            n = len(indptr) - 1
            rows += measure(
                name,
                indptr,
                indices.astype(np.int64),
                n,
                np.diff(indptr),
                args.width,
                args.runs,
                peer=args.torch,
            )
        for name in args.packed:
            rows += records(name, args.width, args.runs, peer=args.torch)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/hag_sequence.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
