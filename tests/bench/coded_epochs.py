"""Training epochs on packed codes against gathering fp32 rows, and the bytes each reads; see
`tests.bench.coded`.

A graph of communities with random ids, as influence batches meet it: a record's nodes lie anywhere
in the feature file, of which the records read a tenth. The peer is this repository's own gather
mode over fp32 rows, memory-mapped; records, graph, model, loader thread and order are the same on
both sides. "memory": everything is in the page cache. "disk": both sides' files are dropped from it
before every epoch, and the fp32 rows before every step too, as where they are many times the memory
and the rows of the next record are seldom there; the kernel is told that they are read at random,
or it would read 128 KiB for every row.
"""

from __future__ import annotations

import gc
import mmap
import os
import statistics
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from stockpot.stages.codec.format import TABLE, describe
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack.stage import Params
from stockpot.stages.train import trainer
from stockpot.stages.train.model import build_model
from tests.loaders import read_steps
from tests.memory import MemoryReader, run_stage
from tests.packs import partition_reader

ROWS, OUTPUTS, DEGREE, CLASSES = 7000, 1800, 10, 16


class Mapped(MemoryReader):
    """Codes in a file, mapped anew by everybody who asks."""

    mapped = None

    def array(self, name):
        if name != "codes":
            return super().array(name)
        self.mapped = np.load(self.root / "codes.npy", mmap_mode="r")
        self.mapped._mmap.madvise(mmap.MADV_RANDOM)
        return self.mapped

    def forget(self):
        """Drop the file from memory, mapped pages too."""
        if self.mapped is not None:
            self.mapped._mmap.madvise(mmap.MADV_DONTNEED)
        forget(self.root)


def graph_of(nodes: int) -> tuple[MemoryReader, MemoryReader]:
    """(graph, records): communities of `ROWS` nodes under random ids; a record each of the first
    tenth of them."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(nodes).astype(np.int32)
    source = rng.integers(0, nodes, nodes * DEGREE // 2)
    target = np.minimum(source // ROWS * ROWS + rng.integers(0, ROWS, source.size), nodes - 1)
    keep = source != target
    ends = ids[source[keep]], ids[target[keep]]
    a = sp.csr_matrix((np.ones(keep.sum(), np.float32), ends), (nodes, nodes))
    a = (a + a.T).tocsr()
    a.sort_indices()
    y = rng.integers(0, CLASSES, nodes).astype(np.int32)
    graph = {"indptr": a.indptr.astype(np.int64), "indices": a.indices.astype(np.int32), "y": y}
    facts = {
        "num_nodes": nodes,
        "nnz": int(a.nnz),
        "num_classes": CLASSES,
        "directed": False,
        "weighted": False,
    }
    members = [np.sort(ids[s : s + ROWS]) for s in range(0, nodes // 10, ROWS)]
    outputs = [rng.choice(m, min(OUTPUTS, len(m)), replace=False) for m in members]
    every = np.concatenate(outputs)
    arrays = {
        "outputs": every,
        "out_ptr": np.cumsum([0, *map(len, outputs)]).astype(np.int64),
        "input_id": np.argsort(np.argsort(every)).astype(np.int64),
        "n_id": np.concatenate(members),
        "n_ptr": np.cumsum([0, *map(len, members)]).astype(np.int64),
    }
    about = {"split": "train", "records": len(members), "outputs": len(every), "num_nodes": nodes}
    about["rows"] = len(arrays["n_id"])
    return MemoryReader(graph, facts, digest="9" * 32), MemoryReader(arrays, about, digest="8" * 32)


def codes_of(name: str, nodes: int, dim: int, folder: Path) -> Mapped:
    """Codes of random bytes: what they decode to changes nothing in the time."""
    rng = np.random.default_rng(1)
    tables = {} if name == "fp32" else {"levels": rng.normal(size=(dim, 256)).astype(np.float16)}
    codec = describe(name, dim, tables)
    folder.mkdir()
    out = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint8, (nodes, codec.row_bytes))
    for s in range(0, nodes, 1 << 14):
        part = out[s : s + (1 << 14)]
        if name == "fp32":
            part[:] = rng.normal(size=(len(part), dim)).astype(np.float32).view(np.uint8)
        else:
            part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    out.flush()
    facts = {
        "codec": name,
        "description": codec.to_json(),
        "row_bytes": codec.row_bytes,
        "num_nodes": nodes,
        "code_bytes": nodes * codec.row_bytes,
        "num_features": dim,
    }
    return Mapped({TABLE + k: v for k, v in tables.items()}, facts, folder, digest="6" * 32)


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache; pages that are mapped stay."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes() -> int:
    """Bytes this process had read from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def epoch(
    reader: MemoryReader, name: str, dim: int, hidden: int, layers: int, number: int, beyond: bool
) -> tuple[float, int]:
    """(seconds, bytes read from disk) of one epoch of training, everything opened anew.

    `beyond`: what is gathered does not stay in memory from one step to the next.
    """
    config = {
        "model": name,
        "num_features": dim,
        "hidden": hidden,
        "num_classes": CLASSES,
        "layers": layers,
        "dropout": 0.5,
        "normalization": "sym",
        "mass": "none",
        "self_loops": True,
        "heads": 4,
    }
    model = build_model(config, seed=0)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def dropped(step):
        reader.parents["codes"].forget()
        return step

    before, started = read_bytes(), time.perf_counter()
    steps = read_steps(
        reader,
        layers=layers,
        adj=model.adj,
        transposes=model.transposes,
        seed=0,
        coded=True,
        transform=dropped if beyond else None,
    )
    steps.set_epoch(number)
    for i, step in enumerate(steps):
        trainer._step(model, adam, step, number, i, "fp32")
    return time.perf_counter() - started, read_bytes() - before


def measure(
    folder: Path,
    *,
    nodes: int,
    dim: int,
    codec: str,
    model: str,
    hidden: int,
    layers: int,
    runs: int,
) -> list:
    """Rows for one setting, cold and warm."""
    graph, records = graph_of(nodes)
    sides = {}
    for side, name in (("ours", codec), ("peer", "fp32")):
        codes = codes_of(name, nodes, dim, folder / f"{side}-codes")
        inputs = {
            "graph": graph,
            "records": records,
            "partition": partition_reader(nodes),
            "codes": codes,
        }
        packed = run_stage(
            PACK, Params("train", gather=side == "peer"), inputs, folder / f"{side}-pack"
        )
        packed.parents = inputs
        sides[side] = packed
    what = f"epoch of {model}, {layers} layers of {hidden}, {codec} packed"
    where = f"communities, {nodes} nodes x {dim}"
    rows = []
    for state in ("disk", "memory"):
        times: dict[str, list[float]] = {side: [] for side in sides}
        read: dict[str, list[int]] = {side: [] for side in sides}
        for turn in range(runs + 1):
            for side, reader in sides.items():
                gc.collect()
                if state == "disk":
                    forget(folder)
                beyond = state == "disk" and side == "peer"
                seconds, size = epoch(reader, model, dim, hidden, layers, turn, beyond)
                if turn:  # the first turn compiles
                    times[side].append(seconds)
                    read[side].append(size)
        ratio = statistics.median(p / o for o, p in zip(times["ours"], times["peer"], strict=True))
        mine, theirs = (statistics.median(times[side]) for side in sides)
        goal = 2.0 if state == "disk" else None
        shared = {"dataset": where, "peer": "fp32 gather", "threads": 1, "n": runs}
        rows.append(
            {
                "what": f"{what}, {state}",
                "ours": mine,
                "peer_value": theirs,
                "unit": "s",
                "ratio": ratio,
                "target": goal,
                "met": None if goal is None else ratio >= goal,
                **shared,
            }
        )
        print(f"| {where} | {model} {layers} x {hidden} | {codec} | {state} | {mine:.2f} | "
        f"{theirs:.2f} | {ratio:.1f} "
              f"| {statistics.median(read['ours']) / 1e6:.1f} | "
              f"{statistics.median(read['peer']) / 1e6:.1f} |",
              flush=True)  # fmt: skip
        if state == "disk":
            mine, theirs = (statistics.median(read[side]) for side in sides)
            rows.append(
                {
                    "what": f"{what}: bytes from disk an epoch, graph included",
                    "ours": mine,
                    "peer_value": theirs,
                    "unit": "bytes",
                    "ratio": theirs / max(1, mine),
                    "target": None,
                    "met": None,
                    **shared,
                }
            )
            read_rows = sides["ours"].facts["rows"]
            features = [read_rows * describe(name, dim).row_bytes for name in (codec, "fp32")]
            rows.append({
                "what": f"{what}: bytes of features an "
                f"epoch", "ours": features[0], "peer_value": features[1],
                "unit": "bytes", "ratio": features[1] / features[0], "target": 30.0,
                "met": features[1] >= 30 * features[0], **shared,
            })  # fmt: skip
    return rows
