"""Rate and distortion of features: stockpot's codecs against BiFeat's own at equal bytes, and the choice of auto.

    python -m tests.bench.quantize                               # the embedded WordNet graph and synthetic features
    python -m tests.bench.quantize --data wordnet synthetic physics debian computers --shared ../shared/data

Aggregated NMSE is the mean over 1, 2 and 3 mean aggregations, error energy over centred energy. Bytes are those of all
rows with all tables, as they are stored; ours is the best of the product code of as many bytes a row, the residual code
of as many stages as fit, and the scalar code where the peer is one. Both sides train on the same rows and are measured
on the same nodes. WordNet, Debian and Physics are 128 SVD columns, Computers is binary as it is published.

What auto takes, with 0.2 and 1 points allowed: how much smaller than fp32, tables counted. Rows go to
runs/bench/quantize.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from stages.codebook.fit import fit
from stages.codebook.rate import Measure
from stages.codebook.rate_choice import Candidate, choose
from stages.codebook.rate_sizes import ladder
from stages.errors import BadInput
from stages.ingest.features import SparseRows
from stages.ingest.svd import reduce_features
from stages.quantize.coder import units
from stages.quantize.features import Features
from stages.quantize.names import parse
from tests.memory import MemoryReader
from tests.stages.graphs import communities

FILES = {
    "wordnet": ("data/wordnet.npz", 128),
    "debian": ("debian12_packages.npz", 128),
    "physics": ("coauthor_physics.npz", 128),
    "computers": ("amazon_computers.npz", 0),
}
PEERS = ("bifeat-sq8", "bifeat-sq4", "bifeat-sq2", "bifeat-sq1", "bifeat-vq8-256", "bifeat-vq16-256", "bifeat-vq32-256")
TRAIN_ROWS = 16_384


def synthetic(nodes: int = 40_000, columns: int = 64) -> tuple[MemoryReader, np.ndarray, np.ndarray]:
    """Dense features of communities: correlated columns, scales over two decades, heavy tails in a quarter of them."""
    edges, group = communities(num_nodes=nodes, groups=40, degree=12, seed=0)
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(columns, columns)) * 0.85 ** np.arange(columns)[:, None]
    x = (rng.normal(size=(40, columns))[group] + 1.5 * rng.normal(size=(nodes, columns))) @ mixed
    tails = columns // 4
    x[:, :tails] *= rng.chisquare(3, (nodes, tails)) ** -0.5 * 3**0.5
    x *= 10 ** rng.uniform(-1, 1, columns)
    a = sp.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (nodes, nodes))
    return _reader(a, group, x=x.astype(np.float32)), *_halves(nodes)


def load(name: str, shared: Path) -> tuple[MemoryReader, np.ndarray, np.ndarray]:
    """(graph, train ids, valid ids) as ingest and split would make them."""
    if name == "synthetic":
        return synthetic()
    file, reduce = FILES[name]
    path = Path(file) if file.startswith("data/") else shared / file
    with np.load(path) as z:
        n = int(z["num_nodes"]) if "num_nodes" in z else len(z["y"])
        tail, head = z["edge_index"].astype(np.int64)
        data, indices, indptr = (z[f"x_{part}"] for part in ("data", "indices", "indptr"))
        shape, y = tuple(z["x_shape"]), z["y"]
        parts = (z["train_idx"], z["valid_idx"]) if "train_idx" in z else _halves(n)
    a = sp.csr_matrix((np.ones(len(tail)), (head, tail)), (n, n))
    x = sp.csr_matrix((data.astype(np.float32), indices, indptr), shape)
    x.sort_indices()
    if not reduce:
        return _reader(a, y, x=x.toarray()), *parts
    rows = SparseRows(x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data, shape[1])
    return _reader(a, y, x=reduce_features(rows, n, shape[1], reduce)), *parts


def _halves(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(nodes)
    return np.sort(order[: nodes // 2]), np.sort(order[nodes // 2 : 3 * nodes // 4])


def _reader(a: sp.csr_matrix, y: np.ndarray, x: np.ndarray) -> MemoryReader:
    a = (a + a.T).tocsr()
    a.setdiag(0)
    a.eliminate_zeros()
    a.sort_indices()
    arrays = {
        "indptr": a.indptr.astype(np.int64),
        "indices": a.indices.astype(np.int32),
        "x": x,
        "y": y.astype(np.int32),
    }
    facts = {"num_nodes": len(x), "nnz": a.nnz, "num_features": x.shape[1], "num_classes": int(y.max()) + 1}
    return MemoryReader(arrays, facts | {"features": "dense", "binary": bool(np.isin(x[:1000], (0, 1)).all())})


class Bench:
    """Candidates of one data set, each measured once."""

    def __init__(self, name: str, shared: Path) -> None:
        self.name = name
        self.graph, train, valid = load(name, shared)
        self.features = Features.from_reader(self.graph)
        self.measure = Measure(self.graph, self.features, train, valid, judged=True)
        x = self.features.x
        assert x is not None
        self.rows, self.columns = x.shape
        self._sample = x[np.sort(np.random.default_rng(0).permutation(self.rows)[:TRAIN_ROWS])]
        shift = x.mean(0, dtype=np.float64).astype(np.float32)
        self._units = {"shift": shift, "scale": units(np.abs(x - shift).max(0), self.rows)}
        self._found: dict[str, Candidate] = {}

    def candidate(self, name: str) -> Candidate:
        if name not in self._found:
            started = time.process_time()
            exact = name in ("fp32", "fp16")
            fitted = {} if exact else fit(name, self._sample, self._units["shift"]) | self._units
            found = self._found[name] = self.measure.candidate(name, fitted)
            print(
                f"  {self.name:<10} {name:<16} {found.row_bytes:>4} B a row, {found.table_bytes:>8} B of tables, "
                f"NMSE {found.nmse:.5f}, aggregated {found.nmse_aggregated:.5f}, ridge loses {100 * found.drop:+.2f} "
                f"± {100 * found.drop_error:.2f} points, {time.process_time() - started:.0f} s",
                flush=True,
            )
        return self._found[name]

    def ours(self, peer: Candidate) -> list[str]:
        """Our codecs of at most the peer's bytes, each as fine as they allow."""
        bits = parse(peer.codec).bits
        names = [f"sq{bits}"] if bits else []
        if 1 <= peer.row_bytes <= self.columns // 2:
            names.append(f"pq{peer.row_bytes}")
        stages = int(peer.total_bytes / (self.rows + 256 * self.columns * 2))
        names += [f"rq{stages}"] if 1 <= stages <= 16 else []
        return names


def rates(bench: Bench) -> list[dict]:
    """A row for each of BiFeat's codecs: the best of ours at its bytes."""
    rows = []
    for name in PEERS:
        try:
            peer = bench.candidate(name)
        except BadInput as error:
            print(f"  {bench.name}: {error}")
            continue
        mine = [c for c in map(bench.candidate, bench.ours(peer)) if c.total_bytes <= 1.02 * peer.total_bytes]
        best = min(mine, key=lambda c: c.nmse_aggregated)
        ratio = peer.nmse_aggregated / best.nmse_aggregated if best.nmse_aggregated else None
        rows.append(
            {
                "what": f"aggregated NMSE, {peer.row_bytes} bytes a row, {best.codec}",
                "dataset": bench.name,
                "ours": best.nmse_aggregated,
                "peer": name,
                "peer_value": peer.nmse_aggregated,
                "unit": "share of energy",
                "threads": 1,
                "n": 1,
                "ratio": ratio,
                "target": 1.0,
                "met": best.nmse_aggregated < peer.nmse_aggregated,
            }
        )
    return rows


def choices(bench: Bench) -> list[dict]:
    """What auto takes: candidates as in the stage, a family up to its first failure."""
    rows = []
    for max_drop, target in ((0.002, 30.0), (0.01, None)):
        table: list[Candidate] = []
        failed = set()
        for name in ladder(bench.rows, bench.columns):
            family = name if name.startswith("fp") else parse(name).family
            if family not in failed:
                table.append(bench.candidate(name))
                failed |= {family} if (table[-1].drop_bound or 0) > max_drop else set()
        taken, why = choose(table, max_drop)
        ratio = table[0].total_bytes / taken.total_bytes
        print(f"  {bench.name}: {100 * max_drop:g} points allowed: {taken.codec}, {ratio:.1f} times smaller; {why}")
        rows.append(
            {
                "what": f"bytes of auto's choice, {100 * max_drop:g} points allowed: {taken.codec}",
                "dataset": bench.name,
                "ours": taken.total_bytes,
                "peer": "fp32",
                "peer_value": table[0].total_bytes,
                "unit": "bytes",
                "threads": 1,
                "n": 1,
                "ratio": ratio,
                "target": target,
                "met": None if target is None else ratio >= target,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["wordnet", "synthetic"], choices=[*FILES, "synthetic"])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of graphs not in here")
    parser.add_argument("--no-choice", action="store_true", help="leave out what auto would take")
    args = parser.parse_args()
    rows = []
    for name in args.data:
        bench = Bench(name, args.shared)
        print(f"{name}: {bench.rows} x {bench.columns}", flush=True)
        rows += rates(bench)
        if not args.no_choice and not bench.graph.facts["binary"]:
            rows += choices(bench)
    print("\n| data | what | ours | BiFeat or fp32 | ratio | target |\n|---|---|---|---|---|---|")
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
        print(
            f"| {r['dataset']} | {r['what']} | {r['ours']:.4g} | {r['peer']}: {r['peer_value']:.4g} "
            f"| {ratio} | {r['target'] or ''} |"
        )
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/quantize.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
