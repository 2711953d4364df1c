"""Section of `make bench-coop` on load plans: rows read by LRU, static and planned caches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from stockpot.stages.influence.permutation import permutation
from stockpot.stages.order.overlap import overlap_chain
from stockpot.stages.partition.solver import solve
from stockpot.stages.sample.batch import Graph, Sampler, Sampling
from stockpot.stages.sample.reuse import lru_misses, overlap
from stockpot.stages.sample.seeds import dealt
from tests.belady_tools import planned_reads
from tests.bench.influence import load

TARGET = 5.0
SHARES = (0.05, 0.1, 0.2)
SETTINGS = (
    ("computers", "amazon_computers", (10, 10), 8),
    ("flickr", "flickr_saint_nofeat", (10, 10), 32),
    ("arxiv", "ogbn_arxiv_nofeat", (10, 10), 64),
)
"""Name, file, fanouts, and outputs of a batch: the largest batch is below a cache of 5 % of the
nodes."""
LARGER = (
    ("computers", "amazon_computers", (5, 5, 5), 8),
    ("arxiv", "ogbn_arxiv_nofeat", (10, 10), 256),
)
"""Of `--full`: deeper, and larger batches, which a cache of 5 % does not hold."""
WAYS = (
    (1, "random", "random"),
    (256, "random", "file"),
    (1, "community", "random"),
    (1, "community", "overlap"),
    (256, "community", "overlap"),
    (None, "community", "overlap"),
)
"""Kappa, seeds and order; the first is what the others are compared with."""


def parts_of(graph: Graph) -> np.ndarray:
    """METIS parts of about 230 nodes, as `partition.parts = auto` has them."""
    count = max(1, round(graph.num_nodes / 230 / 64)) * 64
    with tempfile.TemporaryDirectory() as folder:
        return solve(
            graph.indptr,
            graph.indices,
            count,
            seed=0,
            folder=Path(folder),
            method="metis",
            threads=1,
        )


def static(n_id: np.ndarray, rank: np.ndarray, rows: int) -> int:
    """Rows read where the first `rows` nodes of a ranking are held from the start, these
    included."""
    held = np.zeros(len(rank), bool)
    held[np.argsort(-rank, kind="stable")[:rows]] = True
    return rows + int((~held[n_id]).sum())


def loadplan(found: dict[str, Graph], args) -> list[dict]:
    """Rows read in one epoch from a cold start, as a share of what LRU reads with kappa 1 and
    random seeds."""
    del found
    rows = []
    print(
        "\nRows read, as a share of those of LRU with kappa 1 and random seeds; (times fewer) for "
        "the plan"
    )
    heads = [
        f"{one} {share:.0%}" for share in SHARES for one in ("LRU", "degree", "frequency", "plan")
    ]
    print(
        f"| graph | kappa, seeds, order | rows used | overlap | {' | '.join(heads)} | plan, ns a "
        f"row |"
    )
    print("|---" * (5 + len(heads)) + "|")
    for name, file, fanouts, size in (*SETTINGS, *(LARGER if args.full else ())):
        if not (path := args.data / f"{file}.npz").exists():
            continue
        a, train = load(path)
        graph = Graph.of(a.indptr.astype(np.int64), a.indices.astype(np.int32))
        n, degree, part, base = graph.num_nodes, np.diff(a.indptr), parts_of(graph), {}
        count = -(-len(train) // size)
        setting = f"{name}, {','.join(map(str, fanouts))}, {size} of {len(train)}"
        for kappa, seeds, order in WAYS:
            members, ptr = dealt(
                len(train), count, 0, part[train] if seeds == "community" else None
            )
            sampler = Sampler(graph, Sampling("labor", fanouts, kappa=kappa))
            batches = [
                sampler.batch(i, train[members[ptr[i] : ptr[i + 1]]].astype(np.int32)).n_id
                for i in range(count)
            ]
            n_id, n_ptr = np.concatenate(batches), np.cumsum([0, *map(len, batches)])
            chain = permutation(count, 1) if order == "random" else np.arange(count)
            chain = overlap_chain(n_id, n_ptr)[0] if order == "overlap" else chain
            walk = np.concatenate([batches[i] for i in chain])
            walk_ptr = np.cumsum([0, *(len(batches[i]) for i in chain)])
            cells, spent, most = [], 0.0, max(map(len, batches))
            for share in SHARES:
                cap = int(share * n)
                lru = lru_misses(walk, walk_ptr, n, cap) * len(walk)
                base.setdefault(share, lru)
                started = time.process_time()
                planned = (
                    int(planned_reads(n_id, n_ptr, chain, n, cap).sum()) if most <= cap else None
                )
                spent = time.process_time() - started
                sides = [
                    lru,
                    static(n_id, degree, cap),
                    static(n_id, np.bincount(n_id, minlength=n), cap),
                ]
                cells += [f"{side / base[share]:.3f}" for side in sides]
                ratio = None if planned is None else base[share] / planned
                cells.append(
                    f"no room for {most}" if ratio is None else f"{1 / ratio:.3f} ({ratio:.1f}x)"
                )
                target = (
                    TARGET if share == 0.1 and seeds == "community" and order == "overlap" else None
                )
                word = "inf" if kappa is None else str(kappa)
                rows.append(
                    {
                        "what": f"rows read by the plan, cache {share:.0%}, kappa {word}, {seeds} "
                        f"seeds, {order} order",
                        "dataset": setting,
                        "ours": planned,
                        "peer": "LRU, kappa 1, random seeds",
                        "peer_value": base[share],
                        "unit": "rows",
                        "threads": 1,
                        "n": 1,
                        "ratio": ratio,
                        "target": target,
                        "met": ratio >= target if ratio and target else None,
                    }
                )
            shared = overlap(n_id, n_ptr, n, np.asarray(chain))
            lead = f"| {setting} | {word}, {seeds}, {order} | {len(n_id)} | {shared:.3f}"
            print(f"{lead} | {' | '.join(cells)} | {spent / len(n_id) * 1e9:.0f} |", flush=True)
    return rows
