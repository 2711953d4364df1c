"""Sampled, dependent and cooperative batches: speed against peers, vertices a layer, rows read by
kappa and load plans, and what several ranks read, send and compute.

    python -m tests.bench.coop  # graphs of ../shared/data that are there, and a dense one
    python -m tests.bench.coop --dgl DIR/bin/python   # with DGL's samplers as the peer
    python -m tests.bench.coop --only loadplan        # LRU, static and planned caches

DGL stands in an environment of its own: `python -m venv DIR`, then `DIR/bin/pip install` first
torch, numpy, scipy, networkx, tqdm, psutil and requests, then `--no-deps dgl==1.1.3`. Both sides
sample the same seeds of a graph with one thread, taking turns; figures are CPU seconds, medians
over the turns. Rows go to runs/bench/coop.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path

from tests.bench.coop_sides import projection, sides
from tests.bench.loadplan import loadplan
from tests.bench.sampling import graphs, kappas, speed, vertices

SECTIONS = {
    "speed": speed,
    "vertices": vertices,
    "kappa": kappas,
    "loadplan": loadplan,
    "ranks": sides,
    "mag240m": projection,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--dgl", help="python of an environment with dgl 1.1.3")
    parser.add_argument(
        "--pyg", help="python of an environment with torch_geometric and pyg-lib or torch-sparse"
    )
    parser.add_argument(
        "--graphs", nargs="+", help="of the section on ranks; all that are there by default"
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--full",
        action="store_true",
        help="more batches for the table of kappa, more settings for load plans",
    )
    args = parser.parse_args()
    found = graphs(args.data) if {"speed", "vertices", "kappa"} & set(args.only) else {}
    rows = [row for name in args.only for row in SECTIONS[name](found, args)]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/coop.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
