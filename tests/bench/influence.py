"""PPR + top-k for every output: stockpot's push against torch_geometric's `get_ppr`, alternating runs, one thread each.

    python -m tests.bench.influence                       # the embedded WordNet graph
    python -m tests.bench.influence --npz ../shared/data/ogbn_arxiv_nofeat.npz --outputs 20000

Both sides work on the same undirected graph with self-loops, alpha 0.25 and eps 2e-4; ours includes the top 16 and the
entries at other outputs, theirs neither. Compilation is excluded on both sides. Rows go to runs/bench/influence.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

TARGET = 30.0
ALPHA, EPS, TOP_K = 0.25, 2e-4, 16


def load(path: Path) -> tuple[sp.csr_matrix, np.ndarray]:
    with np.load(path) as z:
        n, (tail, head) = int(z["num_nodes"]), z["edge_index"].astype(np.int64)
        train = z["train_idx"] if "train_idx" in z else np.arange(n)
    a = sp.coo_matrix(
        (np.ones(2 * len(tail), np.float32), (np.r_[head, tail], np.r_[tail, head])), shape=(n, n)
    ).tocsr()
    a.setdiag(0)
    a.eliminate_zeros()
    a.sort_indices()
    return a, np.sort(train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npz", type=Path, nargs="+", default=[Path("data/wordnet.npz")])
    parser.add_argument("--outputs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    import numba
    import torch
    from torch_geometric.utils import add_self_loops, get_ppr

    from stages.influence.push import push_top, workspace
    from stages.influence.walk import walk

    numba.set_num_threads(1)
    torch.set_num_threads(1)
    rows = []
    print(
        "| graph | outputs | ours, us an output | get_ppr, us an output | ratio | target |\n|---|---|---|---|---|---|"
    )
    for path in args.npz:
        a, train = load(path)
        seeds = np.sort(np.random.default_rng(0).choice(train, min(args.outputs, len(train)), replace=False)).astype(
            np.int32
        )
        indptr, indices, none = a.indptr.astype(np.int64), a.indices.astype(np.int32), np.empty(0, np.float32)
        for values in (indptr, indices, none):
            values.flags.writeable = False
        constants = walk(indptr, None, self_loops=True, alpha=ALPHA, eps=EPS)
        position = np.full(a.shape[0], -1, np.int32)
        position[train] = np.arange(len(train), dtype=np.int32)
        space = workspace(constants.threshold)
        top, pair = (np.empty((len(seeds), TOP_K), np.int32) for _ in range(2))
        top_value, pair_value = (np.empty((len(seeds), TOP_K), np.float32) for _ in range(2))
        edge_index, _ = add_self_loops(torch.from_numpy(np.stack(a.nonzero())), num_nodes=a.shape[0])
        target = torch.from_numpy(seeds.astype(np.int64))

        def ours(part: int) -> None:
            push_top(indptr, indices, none, constants.spread, constants.settle, seeds[:part], ALPHA, position, *space,
                     top[:part], top_value[:part], pair[:part], pair_value[:part])  # fmt: skip

        def peer(part: int) -> None:
            get_ppr(edge_index, alpha=ALPHA, eps=EPS, target=target[:part], num_nodes=a.shape[0])

        ours(10), peer(10)
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(args.runs):
            for name, call in (("ours", ours), ("peer", peer)):
                started = time.perf_counter()
                call(len(seeds))
                times[name].append((time.perf_counter() - started) / len(seeds) * 1e6)
        mine, theirs = statistics.median(times["ours"]), statistics.median(times["peer"])
        ratio = statistics.median(p / o for o, p in zip(times["ours"], times["peer"], strict=True))
        print(f"| {path.stem} | {len(seeds)} | {mine:.1f} | {theirs:.1f} | {ratio:.1f} | {TARGET:.0f} |", flush=True)
        rows.append({
            "what": "PPR + top-k for every output", "dataset": path.stem, "ours": mine, "peer": "torch_geometric get_ppr, no top-k",
            "peer_value": theirs, "unit": "us/output", "threads": 1, "n": args.runs, "ratio": ratio, "target": TARGET, "met": ratio >= TARGET,
        })  # fmt: skip
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/influence.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
