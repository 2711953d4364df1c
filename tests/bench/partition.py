"""Partitioners side by side: `python -m tests.bench.partition --npz data/wordnet.npz
ogbn_arxiv_nofeat.npz --full`.

Each method cuts the same symmetric pattern into the parts `auto` asks for; methods alternate,
seconds are medians, one thread. Beside real graphs stand synthetic ones of 10^5 and 10^6 edges,
with `--full` of 10^7: planted communities of 400 nodes (80 % of the edges inside) and a power law
of degrees without communities, ids shuffled. Peak bytes are those of the process and its children
above the start, held against what `plan` projects. Rows: runs/bench/partition.json.
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
from typing import Any

import numpy as np
import scipy.sparse as sp

import stockpot.store.usage
from stockpot.stages.partition import STAGE
from stockpot.stages.partition.blocks import blocks
from stockpot.stages.partition.cut import balance, edge_cut
from stockpot.store.usage import Usage
from tests.memory import MemoryReader, run_stage

METHODS = ("metis", "kaminpar", "stream")
TARGET = 1 / 1.15  # METIS's cut over that of stream
COMMUNITY = 400


def symmetric(nodes: int, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = source != target
    ends = (
        np.r_[target[kept], source[kept]].astype(np.int32),
        np.r_[source[kept], target[kept]].astype(np.int32),
    )
    a = sp.coo_matrix((np.ones(len(ends[0]), bool), ends), shape=(nodes, nodes)).tocsr()
    a.sum_duplicates()
    return a.indptr.astype(np.int64), a.indices.astype(np.int32)


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as z:
        return symmetric(int(z["num_nodes"]), *z["edge_index"])


def planted(edges: int) -> tuple[np.ndarray, np.ndarray]:
    rng, nodes = np.random.default_rng(0), edges // 10
    source = rng.integers(0, nodes, edges)
    inside = np.minimum(
        source // COMMUNITY * COMMUNITY + rng.integers(0, COMMUNITY, edges), nodes - 1
    )
    target = np.where(rng.random(edges) < 0.8, inside, rng.integers(0, nodes, edges))
    return symmetric(nodes, *rng.permutation(nodes)[np.stack([source, target])])


def power(edges: int) -> tuple[np.ndarray, np.ndarray]:
    rng, nodes = np.random.default_rng(0), edges // 10
    share = np.cumsum((np.arange(nodes) + 10.0) ** -0.6)
    ends = np.searchsorted(share, rng.random((2, edges)) * share[-1])
    return symmetric(nodes, *rng.permutation(nodes)[np.minimum(ends, nodes - 1)])


def measure(graph: MemoryReader, method: str) -> dict[str, Any]:
    facts = {"graph": graph.facts}
    params = STAGE.resolve({"partition.method": method, "partition.parts": "auto"}, facts)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with Usage() as usage:
            out = run_stage(STAGE, params, {"graph": graph}, folder)
        seconds = time.perf_counter() - started
    part, indptr, indices = out.array("part"), graph.array("indptr"), graph.array("indices")
    return {
        "parts": params.parts,
        "seconds": seconds,
        "cut": edge_cut(indptr, indices, part),
        "block_cut": edge_cut(indptr, indices, blocks(part, params.parts)),
        "balance": balance(part, params.parts),
        "peak_bytes": usage.peak_bytes,
        "projected_bytes": STAGE.cost(params, facts).peak,
    }


def rows(name: str, found: dict[str, dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    out = []
    for method, ours in found.items():
        shared = {"dataset": name, "threads": 1, "n": runs, "method": method, **ours}
        if method != "metis" and "metis" in found:
            for what, key, unit in (("edge cut", "cut", "share"), ("time", "seconds", "s")):
                target = TARGET if (method, key) == ("stream", "cut") else None
                peer = found["metis"][key]
                ratio = peer / max(ours[key], 1e-12)
                out.append(
                    {
                        "what": f"{what} of {method}",
                        "peer": "METIS",
                        "peer_value": peer,
                        "ours": ours[key],
                        "unit": unit,
                        "ratio": ratio,
                        "target": target,
                        "met": None if target is None else ratio >= target,
                        **shared,
                    }
                )
        ratio = ours["projected_bytes"] / max(1, ours["peak_bytes"])
        out.append({
            "what": f"peak memory of "
            f"{method}", "peer": "limit", "peer_value": ours["projected_bytes"], "unit": "bytes",
            "ours": ours["peak_bytes"], "ratio": ratio, "target": 1.0, "met": ratio >= 1, **shared,
        })  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npz", type=Path, nargs="*", default=[Path("data/wordnet.npz")])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument(
        "--edges", type=int, nargs="*", default=[10**5, 10**6], help="of the synthetic graphs"
    )
    parser.add_argument("--full", action="store_true", help="also synthetic graphs of 10^7 edges")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    stockpot.store.usage.CHILDREN_EVERY = 1  # small graphs are partitioned between two looks
    graphs = {path.stem: lambda path=path: load(path) for path in args.npz}
    for edges in args.edges + ([10**7] if args.full else []):
        graphs[f"planted {edges:.0e}"] = lambda edges=edges: planted(edges)
        graphs[f"power law {edges:.0e}"] = lambda edges=edges: power(edges)
    measure(reader(*planted(10**4)), "stream")  # compiles
    found: list[dict[str, Any]] = []
    out = Path("runs/bench/partition.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    columns = (
        "graph, nodes, entries, parts, method, seconds, cut %, block cut %, balance, peak "
        "MB, projected MB"
    )
    print("|", columns.replace(", ", " | "), "|")
    print("|" + "---|" * 11)
    for name, make in graphs.items():
        graph = reader(*make())
        turns: dict[str, list[dict[str, Any]]] = {method: [] for method in args.methods}
        for _ in range(args.runs):
            for method in args.methods:
                turns[method].append(measure(graph, method))
        middle = {}
        for method, values in turns.items():
            middle[method] = {key: statistics.median(v[key] for v in values) for key in values[0]}
            middle[method]["peak_bytes"] = max(v["peak_bytes"] for v in values)
            m = middle[method]
            print(
                f"| {name} | {graph.facts['num_nodes']:,} | {graph.facts['nnz']:,} | "
                f"{m['parts']:.0f} | {method} "
                f"| {m['seconds']:.1f} | {100 * m['cut']:.1f} | {100 * m['block_cut']:.1f} | "
                f"{m['balance']:.3f} "
                f"| {m['peak_bytes'] / 1e6:.0f} | {m['projected_bytes'] / 1e6:.0f} |",
                flush=True,
            )
        found += rows(name, middle, args.runs)
        out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": found}, indent=1))


def reader(indptr: np.ndarray, indices: np.ndarray) -> MemoryReader:
    longest = int(np.diff(indptr).max())
    facts = {
        "num_nodes": len(indptr) - 1,
        "nnz": len(indices),
        "directed": False,
        "max_degree": longest,
    }
    return MemoryReader({"indptr": indptr, "indices": indices}, facts)


if __name__ == "__main__":
    main()
