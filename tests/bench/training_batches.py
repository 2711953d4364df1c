"""Batches of the sides of `make bench-train`, each behind one interface: how an epoch's training
steps are made, and those of a validation. All bring the same kernels the same kind of matrices."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.locate import artifact_of
from stockpot.stages.loader.options import Delivery, Schedule, Source
from stockpot.stages.pack.layers import Matrix, adjacency
from stockpot.stages.step import Adj
from stockpot.stages.train.evaluate import open_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["BATCHES", "Batch", "layers_of", "whole_graph"]

Batch = tuple[Any, Any, torch.Tensor]
"""(features, one `Adj` a layer, labels of the outputs)."""
VALID_TIMES = 4
"""Outputs of a peer's validation batch, as a multiple of those of a training batch: larger ones
read a row less often."""


def csr(matrix: Matrix) -> torch.Tensor:
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.values))
    return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)


def mean(indptr: NDArray[Any], indices: NDArray[Any], sources: int) -> Matrix:
    """The mean over the sampled neighbours of each output of a layer."""
    degree = np.diff(indptr)
    values = np.repeat((1 / np.maximum(degree, 1)).astype(np.float32), degree)
    narrow = indptr.astype(np.int32, copy=False), indices.astype(np.int32, copy=False)
    return Matrix((len(indptr) - 1, sources), *narrow, values)


def whole_graph(graph: Any, config: dict[str, Any]) -> Matrix:
    """The matrix that the model reads, of the whole graph."""
    kind = {"sage": "mean", "gcn": "norm"}[config["model"]]
    asked = {name: config[name] for name in ("normalization", "mass", "self_loops")}
    asked = {} if kind == "mean" else asked
    return adjacency(graph["indptr"], graph["indices"], adj=kind, **asked)


class Records:
    """Packed records of a stockpot run."""

    outside = 0.0
    """CPU seconds that count though another process spent them, less those that are no part of the
    side."""

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        del graph, x
        run = Path(job["run"])
        nodes = {"train": "pack:train", "valid": "pack:valid", "order": "order"}
        inputs = {name: artifact_of(run, node) for name, node in nodes.items()}
        source = Source.from_reader(inputs["train"], inputs["order"])
        schedule, unread = Schedule(seed=job["seed"]), Delivery(prefetch=0)
        self.train_steps = open_steps(source, model, schedule, unread, training=True)
        self.valid_steps = open_steps(inputs["valid"], model, Schedule(shuffle=False), unread)

    def train(self, epoch: int) -> Iterator[Batch]:
        self.train_steps.set_epoch(epoch)
        for step in self.train_steps:
            yield step.x, step.adjs, step.y

    def valid(self) -> Iterator[Batch]:
        for step in self.valid_steps:
            yield step.x, step.adjs, step.y


class Sampled:
    """Neighbours drawn anew for every batch by a peer's sampler, features read from memory."""

    outside = 0.0

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        self.job, self.x = job, x
        self.y = torch.from_numpy(np.asarray(graph["y"], np.int64))
        self.ids = {name: np.asarray(graph[name], np.int64) for name in ("train", "valid")}
        self.inner = model.transposes == "inner"  # the first layer's is not read then
        self.rng = np.random.default_rng(job["seed"])

    def blocks(self, seeds: NDArray[np.int64]) -> tuple[Any, list[Any]]:
        """(source nodes of the first layer, [(indptr, indices, sources) of each layer])."""
        raise NotImplementedError

    def matrices(
        self, seeds: NDArray[np.int64], *, training: bool
    ) -> tuple[Any, list[tuple[Matrix, Matrix | None]]]:
        """(source nodes of the first layer, each layer's matrix and the transpose that a backward
        pass reads)."""
        nodes, layers = self.blocks(seeds)
        found = []
        for i, layer in enumerate(layers):
            matrix = mean(*layer)
            turned = training and not (self.inner and i == 0)
            found.append((matrix, matrix.transposed() if turned else None))
        return nodes, found

    def batch(self, seeds: NDArray[np.int64], *, training: bool) -> Batch:
        nodes, layers = self.matrices(seeds, training=training)
        adjs = [Adj(csr(one), None if other is None else csr(other)) for one, other in layers]
        return self.x[torch.as_tensor(nodes)], adjs, self.y[torch.from_numpy(seeds)]

    def train(self, epoch: int) -> Iterator[Batch]:
        del epoch
        ids, size = self.rng.permutation(self.ids["train"]), self.job["batch"]
        for start in range(0, len(ids), size):
            yield self.batch(ids[start : start + size], training=True)

    def valid(self) -> Iterator[Batch]:
        ids, size = self.ids["valid"], VALID_TIMES * self.job["batch"]
        for start in range(0, len(ids), size):
            yield self.batch(ids[start : start + size], training=False)


class Dgl(Sampled):
    """DGL's neighbour sampler."""

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        import dgl

        super().__init__(job, model, graph, x)
        # DGL 1.1.3 makes blocks of wrong ids of a graph with 32-bit ids.
        parts = (torch.from_numpy(np.asarray(graph[name], np.int64))
                 for name in ("indptr", "indices"))  # fmt: skip
        self.graph = dgl.graph(("csc", (*parts, torch.tensor([], dtype=torch.int64))))
        self.sampler = dgl.dataloading.NeighborSampler(job["fanouts"])
        dgl.seed(job["seed"])

    def blocks(self, seeds: NDArray[np.int64]) -> tuple[Any, list[Any]]:
        nodes, _, blocks = self.sampler.sample_blocks(self.graph, torch.from_numpy(seeds))
        layers = []
        for block in blocks:
            indptr, indices, _ = block.adj_tensors("csc")
            layers.append((indptr.numpy(), indices.numpy(), block.num_src_nodes()))
        return nodes, layers


class GraphBolt(Sampled):
    """GraphBolt's neighbour sampler, in a process of its own environment. Its CPU seconds count;
    those of sending a batch from one process to the other do not."""

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        super().__init__(job, model, graph, x)
        script = str(Path(__file__).with_name("graphbolt_peer.py"))
        command = [job["python"], script, job["graph"], json.dumps(job["fanouts"]),
                   str(job["seed"])]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"OMP_NUM_THREADS": "1"}
        )
        self.outside = json.loads(self._line())["seconds"]

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("graphbolt: the peer ended; see its message above")
        return line

    def _array(self, count: int) -> NDArray[np.int32]:
        assert self.process.stdout is not None
        return np.frombuffer(self.process.stdout.read(4 * count), np.int32)

    def blocks(self, seeds: NDArray[np.int64]) -> tuple[Any, list[Any]]:
        started = time.process_time()
        assert self.process.stdin is not None
        self.process.stdin.write(len(seeds).to_bytes(8, "little") + seeds.tobytes())
        self.process.stdin.flush()
        head = json.loads(self._line())
        nodes = self._array(head["nodes"])
        layers = [
            (self._array(rows + 1), self._array(nnz), sources)
            for rows, nnz, sources in head["layers"]
        ]
        self.outside += head["seconds"] - (time.process_time() - started)
        return nodes, layers


class NeighborLoader(Sampled):
    """torch_geometric's NeighborLoader, where pyg-lib or torch-sparse is there."""

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        from torch_geometric.data import Data
        from torch_geometric.loader import NeighborLoader as Loader

        super().__init__(job, model, graph, x)
        indptr, indices = (np.asarray(graph[name], np.int64) for name in ("indptr", "indices"))
        target = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        data = Data(edge_index=torch.from_numpy(np.stack([indices, target])), num_nodes=len(x))
        self.loader = Loader(data, job["fanouts"][::-1], batch_size=job["batch"])

    def blocks(self, seeds: NDArray[np.int64]) -> tuple[Any, list[Any]]:
        from torch_geometric.sampler import NodeSamplerInput

        asked = NodeSamplerInput(input_id=None, node=torch.from_numpy(seeds))
        out = self.loader.node_sampler.sample_from_nodes(asked)
        edges = np.stack([out.row.numpy(), out.col.numpy()])
        return out.node, layers_of(edges, out.num_sampled_nodes, out.num_sampled_edges)


def layers_of(
    edges: NDArray[np.int64], nodes_a_hop: list[int], edges_a_hop: list[int]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
    """Layers of one sampled subgraph, the first applied first: (indptr, indices, source nodes).

    Parameters
    ----------
    edges : i8[2, E], (source, target), local ids; targets of hop h - 1 and sources up to hop h
        stand in the h-th run of edges.
    nodes_a_hop, edges_a_hop : hops 0..L and 1..L.
    """
    nodes, ends = np.cumsum(nodes_a_hop), np.cumsum(edges_a_hop)
    layers = []
    for depth in range(len(edges_a_hop), 0, -1):
        source, target = edges[:, : ends[depth - 1]]
        rows = int(nodes[depth - 1])
        if len(target) and (np.diff(target) < 0).any():
            order = np.argsort(target, kind="stable")
            source, target = source[order], target[order]
        indptr = np.zeros(rows + 1, np.int64)
        np.cumsum(np.bincount(target, minlength=rows), out=indptr[1:])
        layers.append((indptr, source, int(nodes[depth])))
    return layers


class Full:
    """The whole graph as one step."""

    outside = 0.0

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        del model
        matrix = whole_graph(graph, job["config"])
        self.x, self.adj = x, Adj(csr(matrix), csr(matrix.transposed()))
        y = np.asarray(graph["y"], np.int64)
        self.y = {name: torch.from_numpy(self._only(y, graph[name])) for name in ("train", "valid")}

    @staticmethod
    def _only(y: NDArray[np.int64], ids: NDArray[Any]) -> NDArray[np.int64]:
        """Labels of these nodes, -1 of all others."""
        out = np.full_like(y, -1)
        out[ids] = y[ids]
        return out

    def train(self, epoch: int) -> Iterator[Batch]:
        del epoch
        yield self.x, self.adj, self.y["train"]

    def valid(self) -> Iterator[Batch]:
        yield self.x, self.adj, self.y["valid"]


class Rows:
    """Rows of features alone: SIGN reads no edge."""

    outside = 0.0

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        del model
        self.x, self.size = x, job["batch"]
        self.y = torch.from_numpy(np.asarray(graph["y"], np.int64))
        self.ids = {name: np.asarray(graph[name], np.int64) for name in ("train", "valid")}
        self.rng = np.random.default_rng(job["seed"])

    def _batches(self, ids: NDArray[np.int64], size: int) -> Iterator[Batch]:
        for start in range(0, len(ids), size):
            rows = torch.from_numpy(ids[start : start + size])
            yield self.x[rows], None, self.y[rows]

    def train(self, epoch: int) -> Iterator[Batch]:
        del epoch
        yield from self._batches(self.rng.permutation(self.ids["train"]), self.size)

    def valid(self) -> Iterator[Batch]:
        yield from self._batches(self.ids["valid"], VALID_TIMES * self.size)


BATCHES: dict[str, Any] = {
    "stockpot": Records,
    "dgl": Dgl,
    "graphbolt": GraphBolt,
    "neighbor-loader": NeighborLoader,
    "full": Full,
    "sign": Rows,
}
