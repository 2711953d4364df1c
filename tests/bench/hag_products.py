"""What a HAG saves in time: products forward and backward, and training, against the plain CSR and
twin rows alone.

    python -m tests.bench.hag_products  # products, and training on the whole of COLLAB
    python -m tests.bench.hag_products --only packed        # training on packed records
    python -m tests.bench.hag_products --only products --graphs imdb-binary proteins

A product is `y = A x` and `A^T dy` at a width. Plain is the trainer's own product of the CSR,
torch's kernel; "kernel" is the same CSR by the kernel that multiplies HAGs, nothing shared; "twins"
is the HAG in which equal rows are computed once and nothing else is shared; the HAG is the one the
cost model picks with the rates of this machine, kept whatever it predicts. "+ I" is the matrix of a
GCN. All sides run in turns on one thread; medians.

Training is the trainer's own step of a GCN on the whole graph, 2 layers, hidden 16 (the published
setting) and 128, random features of as many columns; labels are those of the graphs. Packed records
are made by the pipeline with `hag.enabled` always, auto and never, and read by its loader, the
loader's own work included. An epoch that is s shorter repays a search of t after t / s of them.
Rows go to runs/bench/hag_products.json.
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

from stockpot.stages.hag.hag import plain as flat
from stockpot.stages.hag.hag_choice import find
from stockpot.stages.hag.product.levels import transposed
from stockpot.stages.hag.product.matrix import HagMatrix
from stockpot.stages.hag.product_cost import measured_rates
from stockpot.stages.hag.search.prepared import Settings
from stockpot.stages.hag.search.search import search
from stockpot.stages.hag.search.shape import Shape, build, outline
from stockpot.stages.kernels.sparse_product import spmm
from stockpot.stages.step import Adj, Step
from stockpot.stages.train import trainer
from stockpot.stages.train.model import build_model
from tests.bench.hag import GRAPHS, SHARED, csr, row

WIDTHS = (16, 64, 128, 256)
FORWARD_BACKWARD = {16: 4.0, 128: 2.5}
TRAINING = 2.8
GAIN = 1.2


def plain_matrix(indptr, indices, left=None, right=None):
    values = np.ones(len(indices), np.float32)
    if left is not None:
        values = (
            left[np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))] * right[indices]
        ).astype(np.float32)
    n = len(indptr) - 1
    parts = (
        torch.from_numpy(indptr),
        torch.from_numpy(indices.astype(np.int64)),
        torch.from_numpy(values),
    )
    return torch.sparse_csr_tensor(*parts, (n, n), check_invariants=False)


def sides(indptr, indices, capacity=None):
    """(HAGs by name, seconds of the search, what the model predicts) of a symmetric CSR."""
    rates = measured_rates("cpu")
    search(np.arange(5) * 4, np.tile(np.arange(4), 4))  # compiles
    merges = search(indptr, indices, settings=Settings(capacity=0.0))
    twins = build(merges, outline(merges, Shape(keep=-1)))
    started = time.process_time()
    choice = find(
        indptr,
        indices,
        rates=rates,
        row_bytes=(64, 512),
        least=0.0,
        settings=Settings(capacity=capacity),
    )
    return (
        {"kernel": flat(indptr, indices), "twins": twins, "hag": choice.hag},
        time.process_time() - started,
        choice.predicted,
    )


def turns(calls, runs):
    """Median seconds of each call, in turns, after one of each to warm up."""
    taken = {name: [] for name in calls}
    for turn in range(runs + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in taken.items()}


def products(names, runs):
    rows = []
    print(
        "| graph | predicted | search CPU s | reads, nodes, levels | width | plain ms | kernel | "
        "twins | HAG |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        for loops in (False, True):
            indptr, indices = csr(name, loops=loops)
            hags, seconds, predicted = sides(indptr, indices)
            plain = plain_matrix(indptr, indices)  # symmetric: its own transpose
            pairs = {key: (HagMatrix(hag), HagMatrix(transposed(hag))) for key, hag in hags.items()}
            hag, title = hags["hag"], f"{name}{' + I' if loops else ''}"
            for width in WIDTHS:
                x = torch.randn(len(indptr) - 1, width)

                def both(matrix, turned, x=x):
                    spmm(matrix, None, x)
                    spmm(turned, None, x)

                calls = {"plain": lambda: both(plain, plain)}  # noqa: B023 - called here
                calls |= {key: lambda pair=pair: both(*pair) for key, pair in pairs.items()}
                found = turns(calls, runs)
                gains = {key: found["plain"] / found[key] for key in pairs}
                size = (
                    f"{hag.reads_ratio:.2f}, {hag.num_aggregations / (len(indptr) - 1):.2f}, "
                    f"{hag.depth}"
                )
                print(f"| {title} | {predicted:.2f} | {seconds:.1f} | {size} | {width} | "
                f"{1e3 * found['plain']:.2f} "
                      f"| {gains['kernel']:.2f} | {gains['twins']:.2f} | {gains['hag']:.2f} "
                      f"|", flush=True)  # fmt: skip
                target = FORWARD_BACKWARD.get(width) if name == "collab" else None
                rows += [
                    row(
                        f"{key}: product forward and backward, width {width}",
                        title,
                        1e3 * found[key],
                        "plain CSR",
                        1e3 * found["plain"],
                        "ms",
                        1,
                        runs,
                        gains[key],
                        target if key == "hag" else None,
                    )
                    for key in pairs
                ]
    return rows


def whole(name, runs):
    """Training epochs of a GCN on the whole graph."""
    indptr, indices = csr(name, loops=True)
    with np.load(SHARED / f"{GRAPHS[name]}.npz") as z:
        y = (
            torch.from_numpy(z["graph_label"][z["graph_id"]].astype(np.int64))
            if "graph_id" in z
            else None
        )
        y = torch.from_numpy(z["y"].astype(np.int64)) if y is None else y
    n = len(indptr) - 1
    scale = (1 / np.sqrt(np.diff(indptr))).astype(np.float32)
    hags, seconds, _ = sides(indptr, indices)
    side = torch.from_numpy(scale)
    plain = plain_matrix(indptr, indices, scale, scale)
    adjs = {"plain": Adj(plain, plain)}
    for key, hag in hags.items():
        adjs[key] = Adj(HagMatrix(hag, side, side), HagMatrix(transposed(hag), side, side))
    rows, ids = [], torch.arange(n)
    print(
        "\n| whole graph | hidden | plain s an epoch | kernel | twins | HAG | search CPU s | "
        "repaid after |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for hidden in (16, 128):
        x = torch.randn(n, hidden)
        config = {
            "model": "gcn",
            "num_features": hidden,
            "hidden": hidden,
            "num_classes": int(y.max()) + 1,
            "layers": 2,
            "dropout": 0.5,
        }
        calls = {}
        for key, adj in adjs.items():
            model = build_model(config, seed=0)
            model.train()
            adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
            step = Step(x, (adj, adj), y, ids, ids, (n,), n)
            calls[key] = lambda m=model, a=adam, s=step: trainer._step(m, a, s, 0, 0, "fp32")
        found = turns(calls, runs)
        gains = {key: found["plain"] / found[key] for key in hags}
        repaid = seconds / max(1e-9, found["plain"] - found["hag"])
        print(f"| {name} | {hidden} | {found['plain']:.3f} | {gains['kernel']:.2f} | "
        f"{gains['twins']:.2f} "
              f"| {gains['hag']:.2f} | {seconds:.1f} | {repaid:.0f} epochs "
              f"|", flush=True)  # fmt: skip
        target = TRAINING if name == "collab" and hidden == 16 else None
        rows.append(row(f"hag: GCN epoch, hidden {hidden}, whole "
        f"graph", name, found["hag"], "plain CSR",
                        found["plain"], "s", 1, runs, gains["hag"], target))  # fmt: skip
        rows.append(row(f"epochs until the search is repaid, hidden "
        f"{hidden}", name, repaid, "none", 0.0, "epochs", 1,
                        runs, 0.0, None))  # fmt: skip
    return rows


def sources(folder, name):
    """Recipe source of a graph; COLLAB and IMDB by their first graphs, with features and labels
    made up."""
    if name == "wordnet":
        return "wordnet"
    path = (SHARED / f"{GRAPHS[name]}.npz").resolve()
    with np.load(path) as z:
        if "graph_id" not in z:
            return f"npz:{path}"
        keep = int(np.searchsorted(z["graph_id"], min(500, int(z["graph_id"][-1]) + 1)))
        edges = z["edge_index"]
        edges = edges[:, (edges[0] < keep) & (edges[0] != edges[1])]
        y = z["graph_label"][z["graph_id"][:keep]]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((keep, 16), np.float32)
    np.savez(folder / f"{name}.npz", edge_index=edges, num_nodes=keep, x=x, y=y)
    return f"npz:{folder / name}.npz"


def packed(names, runs):
    from stockpot.stages.loader.records import Records
    from tests.bench.pipeline import stockpot
    from tests.loaders import record_steps

    rows = []
    print(
        "\n| packed records | auto | reads saved | hidden | never s an epoch | always | auto | "
        "search s | repaid |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as kept:
            folder, shards, facts, spent = Path(kept), {}, {}, {}
            source = sources(folder, name)
            (folder / "bench.toml").write_text(
                f'[dataset]\nsource = "{source}"\n[features]\nreduce = 16\ncodec = "fp32"\n'
            )
            for mode in ("never", "always", "auto"):
                where = ["--store", str(folder / "store"), "--runs", str(folder / mode)]
                words = [
                    "--set",
                    f"hag.enabled={mode}",
                    "--set",
                    "infer.full_graph=false",
                    "--set",
                    "features.layout=packed",
                ]
                stockpot("run", str(folder / "bench.toml"), "pack:train", *words, *where)
                summary = json.loads((folder / mode / "bench/summary.json").read_text())
                key = json.loads((folder / mode / "bench/run.json").read_text())["artifacts"][
                    "pack:train"
                ]["key"]
                shards[mode] = sorted(
                    p
                    for p in (folder / "store/objects/pack" / key).glob("*.arrow")
                    if ".index." not in p.name
                )
                made = summary["artifacts"]
                facts[mode], spent[mode] = summary["stages"]["hag"], made["pack:train"]["seconds"]
                if mode != "never":
                    spent[mode] += made["hag"]["seconds"]
            meta = Records(shards["never"]).meta
            for hidden in (16, 128):
                calls = {}
                for mode, files in shards.items():
                    config = {
                        "model": "gcn",
                        "num_features": 16,
                        "hidden": hidden,
                        "layers": 3,
                        "dropout": 0.5,
                        "num_classes": meta["num_classes"],
                    }
                    model = build_model(config, seed=0)
                    model.train()
                    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
                    how = {"layers": 3, "adj": "norm", "transposes": model.transposes, "hag": True}
                    steps = record_steps(Records(files), store_key=mode, split="train", **how)

                    def epoch(m=model, a=adam, s=steps):
                        for i, step in enumerate(s):
                            trainer._step(m, a, step, 0, i, "fp32")

                    calls[mode] = epoch
                found = turns(calls, runs)
                gains = {mode: found["never"] / found[mode] for mode in ("always", "auto")}
                saved = found["never"] - found["always"]
                search_s = spent["always"] - spent["never"]
                repaid = f"{search_s / saved:.0f} epochs" if saved > 0 else "never"
                print(f"| {name} | {'yes' if facts['auto']['use'] else 'no'} | "
                f"{facts['always']['reads_ratio']:.2f} "
                      f"| {hidden} | {found['never']:.3f} | {gains['always']:.2f} | "
                      f"{gains['auto']:.2f} "
                      f"| {search_s:.1f} | {repaid} |", flush=True)  # fmt: skip
                for mode, gain in gains.items():
                    rows.append(row(f"{mode}: GCN epoch, hidden {hidden}", f"{name}, packed "
                    f"records", found[mode],
                                    "never", found["never"], "s", 1, runs, gain, None))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=["products", "training", "packed"])
    parser.add_argument("--graphs", nargs="+", choices=GRAPHS)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = args.only or ["products", "training", "packed"]
    rows = []
    if "products" in parts:
        rows += products(args.graphs or [name for name in GRAPHS if name != "physics"], args.runs)
    if "training" in parts:
        for name in args.graphs or ["collab"]:
            rows += whole(name, args.runs)
    if "packed" in parts:
        rows += packed(args.graphs or ["wordnet", "computers", "imdb-binary", "collab"], args.runs)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/hag_products.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
