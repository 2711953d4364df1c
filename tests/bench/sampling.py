"""Sections of `make bench-coop` on samplers."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from stockpot.stages.sample.batch import Graph, Sampler, Sampling
from stockpot.stages.sample.reuse import lru_misses, overlap
from tests.bench.influence import load

FANOUTS = (10, 10)
BATCHES, SEEDS = 20, 1024  # of a timed run: about 20 thousand seeds
COUNTED = 100  # batches whose vertices are counted
DENSE = (20_000, 500)  # nodes and mean degree of the synthetic graph: that of Reddit
SAMPLERS = {
    "neighbour": {"method": "neighbor"},
    "LABOR-0": {"method": "labor"},
    "LABOR-1": {"method": "labor", "importance_sampling": 1},
    "LABOR-*": {"method": "labor", "importance_sampling": -1},
}
CACHED = (
    ("dense", (10, 10), 64, False),
    ("computers", (10, 10), 32, False),
    ("computers", (5, 5, 5), 64, True),
    ("arxiv", (10, 10), 256, False),
)
"""Graph, fanouts, seeds and layer dependency of the table by kappa; a batch is smaller than the
cache of 25 %."""
KAPPAS = (1, 4, 16, 64, 256, None)


def dense_graph(nodes: int, degree: int, seed: int = 0) -> sp.csr_matrix:
    """Random edges between communities of 500, with degrees that vary by a factor of a few."""
    rng = np.random.default_rng(seed)
    count = nodes * degree // 2
    tail = (nodes * rng.random(count) ** 1.5).astype(np.int64)
    near = (tail // 500 * 500 + rng.integers(0, 500, count)) % nodes
    head = np.where(rng.random(count) < 0.3, near, rng.integers(0, nodes, count))
    a = sp.coo_matrix((np.ones(count, np.float32), (tail, head)), (nodes, nodes)).tocsr()
    a = (a + a.T).tocsr()
    a.setdiag(0)
    a.eliminate_zeros()
    a.sort_indices()
    return a


def graphs(data: Path) -> dict[str, Graph]:
    """Computers and the topology of arxiv where they are, and the dense graph."""
    paths = {"computers": data / "amazon_computers.npz", "arxiv": data / "ogbn_arxiv_nofeat.npz"}
    found = {name: load(path)[0] for name, path in paths.items() if path.exists()}
    found["dense"] = dense_graph(*DENSE)
    return {
        name: Graph.of(a.indptr.astype(np.int64), a.indices.astype(np.int32))
        for name, a in found.items()
    }


class Peer:
    """A peer's sampler, kept ready between the turns."""

    def __init__(self, python: str, kind: str, path: Path) -> None:
        script = str(Path(__file__).with_name("sampling_peer.py"))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DGLBACKEND": "pytorch",
            "PYTHONPATH": "",
        }
        self.process = subprocess.Popen(
            [python, script, kind, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        while (line := self._line()) != "ready":
            if not line:
                raise RuntimeError(f"{kind}: the peer did not start; see its message above")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self) -> tuple[float, int, int]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        seconds, edges, nodes = self._line().split()
        return float(seconds), int(edges), int(nodes)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def speed(found: dict[str, Graph], args) -> list[dict]:
    """Nanoseconds a sampled edge: relabelled blocks of two layers, no features, one thread each."""
    peers = [("dgl-neighbor", args.dgl), ("dgl-labor", args.dgl), ("pyg", args.pyg)]
    rows = []
    print(
        "| graph | sampler | ns an edge | peer | its ns an edge | ratio | target "
        "|\n|---|---|---|---|---|---|---|"
    )
    for name, graph in found.items():
        rng = np.random.default_rng(0)
        size = min(SEEDS, graph.num_nodes // 8)
        seeds = np.stack(
            [rng.choice(graph.num_nodes, size, replace=False) for _ in range(BATCHES)]
        ).astype(np.int32)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.npz"
            np.savez(path, indptr=graph.indptr, indices=graph.indices, seeds=seeds)
            sides = {kind: Peer(python, kind, path) for kind, python in peers if python}
            own = {
                kind: Sampler(graph, Sampling(fanouts=FANOUTS, **SAMPLERS[kind]))
                for kind in ("LABOR-0", "neighbour")
            }
            times: dict[str, list[float]] = {kind: [] for kind in (*own, *sides)}
            for sampler in own.values():
                sampler.batch(0, seeds[0])  # compiles
            for turn in range(args.runs):
                for kind, sampler in own.items():
                    started = time.process_time()
                    batches = [
                        sampler.batch(BATCHES * turn + i, one) for i, one in enumerate(seeds)
                    ]
                    spent = time.process_time() - started
                    edges = sum(layer.indices.size for batch in batches for layer in batch.layers)
                    times[kind].append(spent / edges * 1e9)
                for kind, peer in sides.items():
                    spent, edges, _ = peer.run()
                    times[kind].append(spent / edges * 1e9)
            for peer in sides.values():
                peer.close()
        for kind, against, target in (
            ("LABOR-0", "dgl-neighbor", 1.0),
            ("LABOR-0", "pyg", 3.0),
            ("LABOR-0", "dgl-labor", None),
            ("neighbour", "dgl-neighbor", None),
        ):
            mine = statistics.median(times[kind])
            theirs = statistics.median(times[against]) if against in sides else None
            ratio = (
                statistics.median(p / o for o, p in zip(times[kind], times[against], strict=True))
                if theirs
                else None
            )
            shown = f"{theirs:.1f} | {ratio:.2f}" if theirs else "not installed | "
            print(
                f"| {name} | {kind} | {mine:.1f} | {against} | {shown} | {target or ''} |",
                flush=True,
            )
            rows.append(
                {
                    "what": f"sampling, {kind}",
                    "dataset": name,
                    "ours": mine,
                    "peer": against,
                    "peer_value": theirs,
                    "unit": "ns/edge",
                    "threads": 1,
                    "n": args.runs,
                    "ratio": ratio,
                    "target": target,
                    "met": ratio >= target if ratio and target else None,
                }
            )
    return rows


def vertices(found: dict[str, Graph], args) -> list[dict]:
    """Distinct vertices of each hop, means with 95 % intervals; ratios are paired batch by
    batch."""
    del args
    rows = []
    print(
        "\n| graph | sampler | vertices by layer | edges by layer | neighbour / it, last layer "
        "|\n|---|---|---|---|---|"
    )
    for name, graph in found.items():
        rng = np.random.default_rng(1)
        size = min(256, graph.num_nodes // 50)
        outputs = [
            rng.choice(graph.num_nodes, size, replace=False).astype(np.int32)
            for _ in range(COUNTED)
        ]
        counts = {}
        for kind, how in SAMPLERS.items():
            sampler = Sampler(graph, Sampling(fanouts=(10, 10, 10), **how))
            batches = [sampler.batch(i, one) for i, one in enumerate(outputs)]
            counts[kind] = np.cumsum([b.num_sampled_nodes for b in batches], axis=1).astype(float)
            edges = np.mean([[layer.indices.size for layer in b.layers] for b in batches], axis=0)
            ratio = counts["neighbour"][:, -1] / counts[kind][:, -1]
            half = 1.96 * ratio.std(ddof=1) / math.sqrt(COUNTED)
            spread = 1.96 * counts[kind].std(axis=0, ddof=1) / math.sqrt(COUNTED)
            shown = ", ".join(
                f"{m:.0f} ± {s:.0f}"
                for m, s in zip(counts[kind].mean(0)[1:], spread[1:], strict=True)
            )
            print(
                f"| {name} | {kind} | {shown} | {', '.join(f'{e:.0f}' for e in edges)} "
                f"| {ratio.mean():.3f} ± {half:.3f} |",
                flush=True,
            )
            if kind == "neighbour":
                continue
            rows.append(
                {
                    "what": f"vertices of the last layer, {kind}, 95 % ± {half:.4f}",
                    "dataset": name,
                    "ours": counts[kind][:, -1].mean(),
                    "peer": "neighbour sampling",
                    "peer_value": counts["neighbour"][:, -1].mean(),
                    "unit": "vertices/batch",
                    "threads": 1,
                    "n": COUNTED,
                    "ratio": ratio.mean(),
                    "target": 1.0,
                    "met": bool(ratio.mean() - half > 1),
                }
            )
    return rows


def kappas(found: dict[str, Graph], args) -> list[dict]:
    """Overlap of consecutive batches and rows an LRU cache misses, by kappa; LABOR-0, random
    seeds."""
    rows = []
    count = 1024 if args.full else 320
    print(
        "\n| graph, fanouts, seeds | kappa | rows a batch | overlap | LRU 10 % misses | 25 % | "
        "fewer rows (25 %) |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, fanouts, size, dependent in CACHED:
        if name not in found:
            continue
        graph, rng = found[name], np.random.default_rng(2)
        n = graph.num_nodes
        outputs = [rng.choice(n, size, replace=False).astype(np.int32) for _ in range(count)]
        setting = (
            f"{name}, {','.join(map(str, fanouts))}, "
            f"{size}{', one sample for all layers' * dependent}"
        )
        read = {}
        for kappa in KAPPAS:
            sampler = Sampler(
                graph, Sampling("labor", fanouts, kappa=kappa, layer_dependency=dependent)
            )
            ids = [sampler.batch(i, one).n_id for i, one in enumerate(outputs)]
            n_id, n_ptr = (
                np.concatenate(ids),
                np.concatenate([[0], np.cumsum([len(one) for one in ids])]),
            )
            share = overlap(n_id, n_ptr, n)
            tenth, quarter = (lru_misses(n_id, n_ptr, n, int(part * n)) for part in (0.1, 0.25))
            read[kappa] = quarter * len(n_id)
            ratio = read[1] / read[kappa]
            word = "inf" if kappa is None else str(kappa)
            cells = (
                f"{len(n_id) / count:.0f} | {share:.3f} | {tenth:.3f} | {quarter:.3f} | {ratio:.2f}"
            )
            print(f"| {setting} | {word} | {cells} |", flush=True)
            target = 4.0 if kappa == 256 and name != "arxiv" else None
            rows.append(
                {
                    "what": f"rows read, LRU cache of 25 %, kappa {word}",
                    "dataset": setting,
                    "ours": read[kappa],
                    "peer": "kappa 1",
                    "peer_value": read[1],
                    "unit": "rows",
                    "threads": 1,
                    "n": count,
                    "ratio": ratio,
                    "target": target,
                    "met": ratio >= target if target else None,
                }
            )
    return rows
