"""PPR + top-k for every output, and for every part: stockpot's push against torch_geometric's,
alternating runs.

    python -m tests.bench.influence                       # the embedded WordNet graph
    python -m tests.bench.influence --npz ../shared/data/ogbn_arxiv_nofeat.npz --outputs 5000

Both sides work on the same undirected graph with self-loops, alpha 0.25, eps 2e-4, the 16 largest
entries; ours also keeps the entries at other outputs, theirs the whole sparse rows. The peer is
`topk_ppr_matrix` of torch_geometric's IBMB loader, which is `get_ppr` and its top-k (with a
stand-in for torch_sparse, which has no wheel); `get_ppr` alone stands beside it.

For whole parts (METIS, about 230 nodes, of which the train outputs count) the peer is what its
IBMBBatchLoader does, written again with scipy since it needs torch_sparse's METIS: 50 dense
iterations for 50 sets at once, then an argsort.

Compilation is excluded on both sides; one thread each, CPU seconds. Rows go to
runs/bench/influence.json.
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
import scipy.sparse as sp

TARGET = 30.0
ALPHA, EPS, TOP_K = 0.25, 2e-4, 16
SETS = 50  # the peer's own batch of sets


class SparseStandIn:
    """What `topk_ppr_matrix` needs of torch_sparse's SparseTensor."""

    def __init__(self, row, col, value, sparse_sizes):
        self.matrix = sp.csr_matrix((value.numpy(), (row.numpy(), col.numpy())), shape=sparse_sizes)

    def to_scipy(self, layout):
        return self.matrix.asformat(layout)


def load(path: Path) -> tuple[sp.csr_matrix, np.ndarray]:
    with np.load(path) as z:
        n, (tail, head) = int(z["num_nodes"]), z["edge_index"].astype(np.int64)
        train = z["train_idx"] if "train_idx" in z else np.arange(n)
    ends = np.r_[head, tail], np.r_[tail, head]
    a = sp.coo_matrix((np.ones(len(ends[0]), np.float32), ends), shape=(n, n)).tocsr()
    a.setdiag(0)
    a.eliminate_zeros()
    a.sort_indices()
    return a, np.sort(train)


def measure(path: Path, outputs: int, runs: int) -> dict[str, list[float]]:
    """Microseconds an output of each run, by side."""
    import torch
    from torch_geometric.loader import ibmb_loader
    from torch_geometric.utils import add_self_loops, get_ppr

    from stockpot.stages.influence.push import push_top, workspace
    from stockpot.stages.influence.walk import walk

    ibmb_loader.SparseTensor = SparseStandIn
    a, train = load(path)
    n = a.shape[0]
    seeds = np.sort(
        np.random.default_rng(0).choice(train, min(outputs, len(train)), replace=False)
    ).astype(np.int32)
    indptr, indices, none = (
        a.indptr.astype(np.int64),
        a.indices.astype(np.int32),
        np.empty(0, np.float32),
    )
    for values in (indptr, indices, none):
        values.flags.writeable = False
    constants = walk(indptr, None, self_loops=True, alpha=ALPHA, eps=EPS)
    position = np.full(n, -1, np.int32)
    position[train] = np.arange(len(train), dtype=np.int32)
    space = workspace(constants.threshold)
    top, pair = (np.empty((len(seeds), TOP_K), np.int32) for _ in range(2))
    top_value, pair_value = (np.empty((len(seeds), TOP_K), np.float32) for _ in range(2))
    edge_index, _ = add_self_loops(torch.from_numpy(np.stack(a.nonzero())), num_nodes=n)
    target = seeds.astype(np.int64)

    def ours(part: int) -> None:
        push_top(
            indptr,
            indices,
            none,
            constants.spread,
            constants.settle,
            seeds[:part],
            ALPHA,
            position,
            *space,
            top[:part],
            top_value[:part],
            pair[:part],
            pair_value[:part],
        )

    def peer(part: int) -> None:
        ibmb_loader.topk_ppr_matrix(
            edge_index, n, ALPHA, EPS, torch.from_numpy(target[:part]), TOP_K
        )

    def alone(part: int) -> None:
        get_ppr(
            edge_index, alpha=ALPHA, eps=EPS, target=torch.from_numpy(target[:part]), num_nodes=n
        )

    sides = {"ours": ours, "peer": peer, "alone": alone}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(runs + 1):
        for name, call in sides.items():
            part = len(seeds) if turn else 10  # the first turn compiles
            started = time.process_time()
            call(part)
            if turn:
                times[name].append((time.process_time() - started) / part * 1e6)
    return times


def measure_sets(path: Path, runs: int) -> tuple[dict[str, list[float]], float]:
    """Microseconds a part of each run, by side, and the share of the peer's nodes that ours has
    ("reference")."""
    import torch

    from stockpot.stages.influence.batch_params import Params
    from stockpot.stages.influence.push import workspace
    from stockpot.stages.influence.sets import largest, push_set
    from stockpot.stages.influence.walk_inputs import set_walk
    from stockpot.stages.partition.solver import solve
    from tests.stages.graphs import reader

    a, train = load(path)
    n = a.shape[0]
    indptr, indices = a.indptr.astype(np.int64), a.indices.astype(np.int32)
    count = max(1, round(n / 230 / 64)) * 64
    with tempfile.TemporaryDirectory() as folder:
        part = solve(indptr, indices, count, seed=0, folder=Path(folder))
    every = [train[part[train] == p].astype(np.int32) for p in range(count)]
    sets = [outputs for outputs in every if len(outputs)][:SETS]
    top_k = -(-n // count)
    loops = (a + sp.identity(n, np.float32, "csr")).tocsr()
    adj = sp.diags((1 / loops.sum(1).A1).astype(np.float32)) @ loops
    for values in (indptr, indices):
        values.flags.writeable = False
    walks = {}
    for name in ("transpose", "reference"):
        params = Params(
            "batch", "train", "train", ALPHA, EPS, 0, True, 1, 0, ratio=1.0, orientation=name
        )
        walk = set_walk(params, {"graph": reader(indptr, indices)})
        walks[name] = walk, workspace(walk.threshold)

    def ours(name: str) -> list[np.ndarray]:
        walk, space = walks[name]
        args = (*walk.arrays, walk.leaving, walk.entering, walk.settle)
        return [largest(*push_set(*args, seeds, ALPHA, *space), top_k) for seeds in sets]

    def peer() -> list[np.ndarray]:
        start = np.zeros((n, len(sets)), np.float32)
        for i, seeds in enumerate(sets):
            start[seeds, i] = 1 / len(seeds)
        x = start.copy()
        for _ in range(50):
            x = adj @ x * np.float32(1 - ALPHA) + np.float32(ALPHA) * start
        order, nonzero = torch.from_numpy(x).argsort(0), np.minimum((x > 0).sum(0), top_k)
        return [order[-int(nonzero[i]) :, i].numpy() for i in range(len(sets))]

    sides = {
        "transpose": lambda: ours("transpose"),
        "reference": lambda: ours("reference"),
        "peer": peer,
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    found = {}
    for turn in range(runs + 1):
        for name, call in sides.items():
            if turn or name != "peer":  # the first turn compiles
                started = time.process_time()
                found[name] = call()
                times[name] += [(time.process_time() - started) / len(sets) * 1e6] if turn else []
    held = [
        len(np.intersect1d(x, y)) / len(y)
        for x, y in zip(found["reference"], found["peer"], strict=True)
    ]
    return times, statistics.mean(held)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npz", type=Path, nargs="+", default=[Path("data/wordnet.npz")])
    parser.add_argument("--outputs", type=int, default=2000)
    parser.add_argument(
        "--only-parts", action="store_true", help="leave out the rows of single outputs"
    )
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    import numba
    import torch

    numba.set_num_threads(1)
    torch.set_num_threads(1)
    rows = []
    print(
        "| graph | ours, us an output | PyG get_ppr + top-k | ratio | target | PyG get_ppr alone | "
        "ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    for path in [] if args.only_parts else args.npz:
        times = measure(path, args.outputs, args.runs)
        mid = {name: statistics.median(values) for name, values in times.items()}
        ratio, alone = (
            statistics.median(p / o for o, p in zip(times["ours"], times[name], strict=True))
            for name in ("peer", "alone")
        )
        print(
            f"| {path.stem} | {mid['ours']:.1f} | {mid['peer']:.0f} | {ratio:.1f} | {TARGET:.0f} "
            f"| {mid['alone']:.0f} | {alone:.1f} |",
            flush=True,
        )
        shared = {
            "dataset": path.stem,
            "ours": mid["ours"],
            "unit": "us/output",
            "threads": 1,
            "n": args.runs,
        }
        rows.append({
            "what": "PPR + top-k for every output", "peer": "torch_geometric get_ppr + its "
            "top-k", **shared,
            "peer_value": mid["peer"], "ratio": ratio, "target": TARGET, "met": ratio >= TARGET,
        })  # fmt: skip
        rows.append({
            "what": "PPR + top-k for every output", "peer": "torch_geometric get_ppr "
            "alone", **shared,
            "peer_value": mid["alone"], "ratio": alone, "target": None, "met": None,
        })  # fmt: skip
    print("\n| graph | whole parts | ours, us a part | 50 dense iterations + argsort | ratio |")
    print("|---|---|---|---|---|")
    for path in args.npz:
        times, held = measure_sets(path, args.runs)
        for name in ("transpose", "reference"):
            mine, theirs = statistics.median(times[name]), statistics.median(times["peer"])
            ratio = statistics.median(
                p / o for o, p in zip(times[name], times["peer"], strict=True)
            )
            print(f"| {path.stem} | {name} | {mine:.0f} | {theirs:.0f} | {ratio:.1f} |", flush=True)
            rows.append({
                "what": f"auxiliary nodes of every part, "
                f"{name}", "dataset": path.stem, "ours": mine,
                "peer": "IBMBBatchLoader's dense form in "
                "scipy", "peer_value": theirs, "unit": "us/part", "threads": 1,
                "n": args.runs, "ratio": ratio, "target": None, "met": None,
            })  # fmt: skip
        print(f"  {path.stem}: of the peer's nodes, reference holds {held:.1%}")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/influence.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
