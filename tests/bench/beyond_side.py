"""One side of `make bench-beyond`, alone in a process that may be held to a memory limit: trains on
its batches, a JSON line an epoch or when its time is over.

    python -m tests.bench.beyond_side stockpot JOB.json
    python -m tests.bench.beyond_side dgl JOB.json
    python -m tests.bench.beyond_side graphbolt JOB.json
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from stockpot.stages.step import Adj
from stockpot.stages.train.model import build_model, save_model
from tests.bench.beyond_limits import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LR = 5e-3


def read_bytes() -> int:
    """Bytes that this process had fetched from storage so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def sparse(indptr: Any, indices: Any, values: Any, shape: tuple[int, int]) -> torch.Tensor:
    parts = (torch.from_numpy(np.asarray(part)) for part in (indptr, indices, values))
    return torch.sparse_csr_tensor(*parts, shape, check_invariants=False)


def mean(
    indptr: NDArray[Any], indices: NDArray[Any], rows: int, sources: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block's mean over sampled neighbours, and its transpose."""
    import scipy.sparse as sp

    degree = np.diff(indptr)
    values = np.repeat((1 / np.maximum(degree, 1)).astype(np.float32), degree)
    matrix = sp.csr_matrix((values, indices, indptr), (rows, sources))
    turned = matrix.T.tocsr()
    return (
        sparse(matrix.indptr, matrix.indices, matrix.data, matrix.shape),
        sparse(turned.indptr, turned.indices, turned.data, turned.shape),
    )


class Stockpot:
    """Steps of packed records, as `train` reads them."""

    def apart(self) -> tuple[float, float, int]:
        """What is added for another process that makes the batches: (wall seconds, CPU seconds,
        bytes read)."""
        return 0.0, 0.0, 0

    def close(self) -> None:
        """End what it started."""

    def __init__(self, job: dict[str, Any], model: Any) -> None:
        from stockpot.stages.loader.options import Delivery, Schedule, Source
        from stockpot.stages.train.evaluate import open_steps
        from stockpot.store.store import Store

        store = Store(job["store"])
        pack, order = (store.open(stage, job[stage]) for stage in ("pack", "order"))
        source = Source.from_reader(pack, order)
        self.steps = open_steps(source, model, Schedule(), Delivery(prefetch=2), training=True)

    def epoch(self) -> Iterator[tuple[torch.Tensor, Any, torch.Tensor, int]]:
        for step in self.steps:
            yield step.x, step.adjs, step.y, step.x.shape[0]


class Dgl:
    """Batches of DGL's neighbour sampler, features from a memory map."""

    def __init__(self, job: dict[str, Any], model: Any) -> None:
        import dgl

        del model
        arrays = np.load(job["graph"])
        indptr, indices = (torch.from_numpy(arrays[name]) for name in ("indptr", "indices"))
        graph = dgl.graph(("csc", (indptr, indices, torch.tensor([], dtype=torch.int64))))
        self.x = np.load(job["features"], mmap_mode="r")
        if job["advice"] == "random":
            self.x.base.madvise(mmap.MADV_RANDOM)
        self.y = torch.from_numpy(arrays["y"].astype(np.int64))
        self.seeds = torch.from_numpy(arrays["train"].astype(np.int64))
        sampler = dgl.dataloading.NeighborSampler(job["fanouts"])
        torch.manual_seed(job["seed"])
        self.loader = dgl.dataloading.DataLoader(
            graph, self.seeds, sampler, batch_size=job["batch"], shuffle=True, num_workers=0
        )
        self.nodes: list[NDArray[np.int64]] = []

    def apart(self) -> tuple[float, float, int]:
        return 0.0, 0.0, 0

    def close(self) -> None:
        pass

    def epoch(self) -> Iterator[tuple[torch.Tensor, Any, torch.Tensor, int]]:
        for source, seeds, blocks in self.loader:
            ids = source.numpy()
            self.nodes.append(ids)
            # Rows are read in the order of the file, which is the best that a batch can do.
            order = np.argsort(ids, kind="stable")
            x = np.empty((len(ids), self.x.shape[1]), np.float32)
            for start in range(0, len(order), 8192):  # no second copy of all of them
                some = order[start : start + 8192]
                x[some] = self.x[ids[some]]
            yield torch.from_numpy(x), [self.mean(block) for block in blocks], self.y[seeds], len(x)

    @staticmethod
    def mean(block: Any) -> Adj:
        """A block's mean over sampled neighbours, and its transpose."""
        indptr, indices, _ = block.adj_tensors("csc")
        sizes = block.num_dst_nodes(), block.num_src_nodes()
        return Adj(*mean(indptr.numpy(), indices.numpy(), *sizes))


class GraphBolt:
    """Batches of GraphBolt's neighbour sampler and its features on disk, in a process of its own
    environment, which alone is held to the limits: the model and a second runtime, which this
    process has, would not fit beside it. Its seconds and bytes count; those of sending a batch from
    one process to the other do not."""

    def __init__(self, job: dict[str, Any], model: Any) -> None:
        del model
        with np.load(job["graph"]) as arrays:
            self.y = torch.from_numpy(arrays["y"].astype(np.int64))
            self.seeds = torch.from_numpy(arrays["train"].astype(np.int64))
        self.batch, self.columns = job["batch"], job["model"]["num_features"]
        torch.manual_seed(job["seed"])
        script = str(Path(__file__).with_name("graphbolt_peer.py"))
        command = [job["python"], script, job["graph"], json.dumps(job["fanouts"]),
                   str(job["seed"]), job["features"], job["advice"]]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"OMP_NUM_THREADS": "1", NAMES: os.environ.get(NAMES, "")},
        )  # fmt: skip
        self.before = self._line()["read_bytes"]
        self.wall = self.cpu = 0.0
        self.read = 0

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("graphbolt: the peer ended; see its message above")
        found: dict[str, Any] = json.loads(line)
        return found

    def _array(self, count: int, kind: Any = np.int32) -> NDArray[Any]:
        assert self.process.stdout is not None
        out = np.empty(count, kind)
        if self.process.stdout.readinto(memoryview(out).cast("B")) != out.nbytes:
            raise RuntimeError("graphbolt: the peer ended inside a batch")
        return out

    def epoch(self) -> Iterator[tuple[torch.Tensor, Any, torch.Tensor, int]]:
        assert self.process.stdin is not None
        for seeds in self.seeds[torch.randperm(len(self.seeds))].split(self.batch):
            wall, cpu = time.perf_counter(), time.process_time()
            self.process.stdin.write(len(seeds).to_bytes(8, "little") + seeds.numpy().tobytes())
            self.process.stdin.flush()
            head = self._line()
            self._array(head["nodes"])
            blocks = [
                (self._array(rows + 1), self._array(nnz), rows, sources)
                for rows, nnz, sources in head["layers"]
            ]
            x = self._array(head["nodes"] * self.columns, np.float32)
            self.wall += head["wall"] - (time.perf_counter() - wall)
            self.cpu += head["seconds"] - (time.process_time() - cpu)
            self.read = head["read_bytes"] - self.before
            rows = torch.from_numpy(x.reshape(head["nodes"], self.columns))
            yield rows, [Adj(*mean(*block)) for block in blocks], self.y[seeds], len(rows)

    def apart(self) -> tuple[float, float, int]:
        return self.wall, self.cpu, self.read

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main(kind: str, job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = build_model(job["model"], seed=job["seed"]).train()
    model.generator = torch.Generator().manual_seed(job["seed"])
    adam = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    side: Any = {"stockpot": Stockpot, "dgl": Dgl, "graphbolt": GraphBolt}[kind](job, model)
    begun = read_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    outputs = rows = 0
    stopped = False
    for epoch in range(job["epochs"]):
        for x, adjs, y, count in side.epoch():
            outputs, rows = outputs + len(y), rows + count
            if job["train"]:
                loss = functional.cross_entropy(model(x, adjs), y, ignore_index=-1)
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
            else:
                float(x.sum())  # every byte is touched
            stopped = time.perf_counter() - started > job["seconds"]
            if stopped:
                break
        wall, more_cpu, more_bytes = side.apart()
        found = {
            "epoch": epoch,
            "outputs": outputs,
            "rows": rows,
            "seconds": time.perf_counter() - started + wall,
            "cpu_seconds": time.process_time() - cpu + more_cpu,
            "read_bytes": read_bytes() - begun + more_bytes,
            "stopped": stopped,
        }
        print(json.dumps(found), flush=True)
        if job.get("weights"):
            save_model(Path(job["weights"]) / f"{epoch}.safetensors", model, {})
        if stopped:
            break
    side.close()
    if job.get("accesses"):
        nodes = getattr(side, "nodes", [])
        pointer = np.cumsum([0, *(len(ids) for ids in nodes)])
        np.savez(job["accesses"], n_id=np.concatenate(nodes), n_ptr=pointer)


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore")
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
