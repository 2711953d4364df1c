"""Rate and distortion of features: stockpot's codecs against BiFeat's own at equal bytes, and the
choice of auto.

    python -m tests.bench.quantize  # the embedded WordNet graph and synthetic features
    python -m tests.bench.quantize --full  # and Debian, Physics, Computers; trained networks

Aggregated NMSE is the mean over 1, 2 and 3 mean aggregations, error energy over centred energy.
Bytes are those of all rows with all tables, as they are stored; ours is the best of the scalar code
where the peer is one, of product and of residual codes, that takes no more bytes, or the lossless
code of binary columns. Both sides train on the same rows and are measured on the same nodes.
WordNet, Debian and Physics are 128 SVD columns, Computers is binary as it is published.

What auto takes, with 0.2 and 1 points allowed: how much smaller than fp32, tables counted. Bits a
dimension of sparse binary columns as they are published. Rows go to runs/bench/quantize.json;
--full then trains networks on coded features (`tests.bench.quantize_accuracy`), and on what auto
takes of them (`tests.bench.codec_table`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from stockpot.stages.codec.codec_names import parse
from stockpot.stages.codec.coder import units
from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.codec.fit import fit
from stockpot.stages.codec.rate import Figures, Measure
from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.features import SparseRows
from stockpot.stages.ingest.svd import reduce_features
from stockpot.stages.judge import STAGE as JUDGE
from stockpot.stages.quantize.stage import STAGE as QUANTIZE
from tests.memory import MemoryReader, run_stage
from tests.stages.graphs import communities

FILES = {
    "wordnet": ("data/wordnet.npz", 128),
    "debian": ("debian12_packages.npz", 128),
    "physics": ("coauthor_physics.npz", 128),
    "computers": ("amazon_computers.npz", 0),
}
PEERS = (
    "bifeat-sq8",
    "bifeat-sq4",
    "bifeat-sq2",
    "bifeat-sq1",
    "bifeat-vq8-256",
    "bifeat-vq16-2048",
    "bifeat-vq16-256",
    "bifeat-vq32-256",
    "bifeat-vq64-256",
)
MOST_STAGES = 16
TRAIN_ROWS = 16_384


def synthetic(
    nodes: int = 40_000, columns: int = 64
) -> tuple[MemoryReader, np.ndarray, np.ndarray]:
    """Dense features of communities: correlated columns, scales over two decades, heavy tails in a
    quarter of them."""
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
    facts = {
        "num_nodes": len(x),
        "nnz": a.nnz,
        "num_features": x.shape[1],
        "num_classes": int(y.max()) + 1,
    }
    kind = {
        "features": "dense",
        "binary": bool(np.isin(x[:1000], (0, 1)).all()),
        "x_nnz": int(np.count_nonzero(x)),
    }
    return MemoryReader(arrays, facts | kind | {"directed": False, "weighted": False})


class Bench:
    """Figuress of one data set, each measured once."""

    def __init__(self, name: str, shared: Path) -> None:
        self.name = name
        self.graph, train, valid = load(name, shared)
        self.split = MemoryReader(
            {"train": train, "valid": valid}, {"train": len(train), "valid": len(valid)}
        )
        self.features = Features.from_reader(self.graph)
        self.measure = Measure(self.graph, self.features, train, valid)
        x = self.features.x
        assert x is not None
        self.rows, self.columns = x.shape
        self._sample = x[np.sort(np.random.default_rng(0).permutation(self.rows)[:TRAIN_ROWS])]
        shift = x.mean(0, dtype=np.float64).astype(np.float32)
        self._units = {"shift": shift, "scale": units(np.abs(x - shift).max(0), self.rows)}
        self._found: dict[str, Figures] = {}

    def candidate(self, name: str) -> Figures:
        if name not in self._found:
            started = time.process_time()
            fitted = fit(name, self._sample, self._units["shift"]) | self._units
            found = self._found[name] = self.measure.figures(name, fitted)
            print(
                f"  {self.name:<10} {name:<16} {found.row_bytes:>4} B a row, "
                f"{found.table_bytes:>8} B of tables, "
                f"NMSE {found.nmse:.5f}, aggregated {found.nmse_aggregated:.5f}, "
                f"{time.process_time() - started:.0f} s",
                flush=True,
            )
        return self._found[name]

    def ours(self, peer: Figures) -> list[str]:
        """Our codecs that take no more bytes than the peer, each as fine as they allow; at least
        one."""
        bits, columns, total = parse(peer.codec).bits, self.columns, peer.total_bytes
        names = [f"sq{bits // 2**k}" for k in range(2) if bits >= 2**k]
        units = (total - 2 * 256 * columns) // self.rows
        names += [f"pq{min(units, columns // 2)}"] if units >= 1 else []
        stages = (total - 4 * columns) // (self.rows + 2 * 256 * columns)
        names += [f"rq{stages}"] if 1 <= stages <= MOST_STAGES else []
        return [name for name in names if self._bytes(name) <= total]

    def _bytes(self, name: str) -> int:
        """Of all rows and the tables, half floats."""
        kind = parse(name)
        tables = 2 * kind.entries * self.columns * (kind.units if kind.family == "rq" else 1)
        return (
            kind.row_bytes(self.columns) * self.rows
            + tables
            + (4 * self.columns if kind.family == "rq" else 0)
        )


def rates(bench: Bench) -> list[dict]:
    """A row for each of BiFeat's codecs: the best of ours at its bytes."""
    rows = []
    for name in PEERS:
        try:
            peer = bench.candidate(name)
        except BadInput as error:
            print(f"  {bench.name}: {error}")
            continue
        mine = [
            c for c in map(bench.candidate, bench.ours(peer)) if c.total_bytes <= peer.total_bytes
        ]
        found = {c.codec: (c.nmse_aggregated, c.total_bytes) for c in mine}
        lossless = bench.rows * -(-bench.columns // 8)
        if bench.graph.facts["binary"] and lossless <= peer.total_bytes:
            found["lossless"] = (0.0, lossless)
        codec, (error, size) = min(found.items(), key=lambda item: item[1])
        rows.append(
            {
                "what": f"aggregated NMSE, {peer.row_bytes} bytes a row, {codec}",
                "dataset": bench.name,
                "ours": error,
                "bytes": size,
                "peer": name,
                "peer_value": peer.nmse_aggregated,
                "peer_bytes": peer.total_bytes,
                "unit": "share of energy",
                "threads": 1,
                "n": 1,
                "ratio": peer.nmse_aggregated / error if error else None,
                "target": 1.0,
                "met": error < peer.nmse_aggregated,
            }
        )
    return rows


def sparse(name: str, shared: Path) -> list[dict]:
    """Bits a dimension of binary columns as `lossless` stores them: as published, before any
    SVD."""
    file, _ = FILES[name]
    path = Path(file) if file.startswith("data/") else shared / file
    with np.load(path) as z:
        n, columns = z["x_shape"].tolist()
        indptr, indices, binary = (
            z["x_indptr"].astype(np.int64),
            z["x_indices"],
            bool((z["x_data"] == 1).all()),
        )
    if not binary:
        return []
    facts = {
        "num_nodes": n,
        "num_features": columns,
        "x_nnz": len(indices),
        "features": "sparse",
        "binary": True,
    }
    reader = MemoryReader({"x_indptr": indptr, "x_indices": indices.astype(np.int32)}, facts)
    recipe = {"features.codec": "lossless", "features.tier_share": 0.0, "features.tier_bytes": 8}
    params = QUANTIZE.resolve(recipe, {"graph": facts})
    with tempfile.TemporaryDirectory() as folder:
        made = run_stage(QUANTIZE, params, {"graph": reader}, folder)
    size = sum(values.nbytes for values in made.arrays.values())
    bits = 8 * size / (n * columns)
    return [
        {
            "what": f"bits a dimension, {made.facts['codec']}, {columns} columns",
            "dataset": name,
            "ours": bits,
            "peer": "a bit for each",
            "peer_value": 1.0,
            "unit": "bits",
            "threads": 1,
            "n": 1,
            "ratio": 1.0 / bits,
            "target": 1.0,
            "met": bits < 1.0,
        }
    ]


def choices(bench: Bench) -> list[dict]:
    """What auto takes where a GCN judges: as in the stage, whatever the size of the features."""
    rows = []
    for max_drop, target in ((0.002, 30.0), (0.01, None)):
        asked = {
            "features.codec": "auto",
            "features.lossless_up_to": 0,
            "features.max_accuracy_drop": max_drop,
        }
        inputs = {"graph": bench.graph, "split": bench.split}
        params = JUDGE.resolve(
            asked | {"train.model": "gcn"}, {role: one.facts for role, one in inputs.items()}
        )
        with tempfile.TemporaryDirectory() as folder:
            facts = run_stage(JUDGE, params, inputs, folder).facts
        plain = 4 * bench.rows * bench.columns
        size = next(
            (row["total_bytes"] for row in facts["rate"] if row["codec"] == facts["codec"]), plain
        )
        ratio, taken = plain / size, facts["codec"]
        print(
            f"  {bench.name}: {100 * max_drop:g} points allowed: {taken}, {ratio:.1f} times "
            f"smaller; {facts['reason']}"
        )
        rows.append(
            {
                "what": f"bytes of auto's choice, {100 * max_drop:g} points allowed: {taken}",
                "dataset": bench.name,
                "ours": size,
                "peer": "fp32",
                "peer_value": plain,
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*FILES, "synthetic"]
    parser.add_argument(
        "--data", nargs="+", choices=every, help="default: wordnet synthetic; with --full all"
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared/data"), help="folder of graphs not in here"
    )
    parser.add_argument("--no-choice", action="store_true", help="leave out what auto would take")
    parser.add_argument(
        "--full", action="store_true", help="all graphs, and the accuracy of networks: hours"
    )
    args = parser.parse_args()
    rows = []
    for name in args.data or (every if args.full else ["wordnet", "synthetic"]):
        if name in FILES:
            rows += sparse(name, args.shared)
        bench = Bench(name, args.shared)
        print(f"{name}: {bench.rows} x {bench.columns}", flush=True)
        rows += rates(bench)
        if not args.no_choice and not bench.graph.facts["binary"]:
            rows += choices(bench)
    print("\n| data | what | ours | BiFeat or fp32 | ratio | target |\n|---|---|---|---|---|---|")
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
        print(
            f"| {r['dataset']} | {r['what']} | {r['ours']:.4g} | {r['peer']}: "
            f"{r['peer_value']:.4g} "
            f"| {ratio} | {r['target'] or ''} |"
        )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/quantize.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))
    if args.full:
        accuracy = [
            sys.executable,
            "-m",
            "tests.bench.quantize_accuracy",
            "--shared",
            str(args.shared),
        ]
        subprocess.run([*accuracy, "--data", "physics", "debian", "wordnet"], check=True)
        subprocess.run(
            [sys.executable, "-m", "tests.bench.codec_table", "--shared", str(args.shared)],
            check=True,
        )


if __name__ == "__main__":
    main()
