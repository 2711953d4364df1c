"""A community graph cut into records, and a loader of them in plain scipy: what the trainer's tests
need of a pipeline.

Records hold every hop a three-layer model reaches, so a record's outputs must equal those of the
whole graph.
"""

import warnings

import numpy as np
import scipy.sparse as sp
import torch

from stockpot.stages.hag.sequence import Sequences, read_order
from stockpot.stages.step import Adj, Step
from tests.memory import MemoryReader

HOPS = 3


def community(nodes=240, classes=3, degree=5, features=8, seed=0, unlabelled=0.1):
    """(CSR i.e. symmetric pattern without loops, x f4[N, D], y i8[N] with some -1)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, nodes)
    source = rng.integers(0, nodes, nodes * degree // 2)
    members = [np.flatnonzero(y == c) for c in range(classes)]
    near = [rng.choice(members[y[s]]) for s in source]
    target = np.where(rng.random(len(source)) < 0.85, near, rng.integers(0, nodes, len(source)))
    keep = source != target
    a = sp.csr_matrix(
        (np.ones(keep.sum(), np.float32), (source[keep], target[keep])), (nodes, nodes)
    )
    a = (a + a.T).tocsr()
    a.data[:] = 1
    a.sort_indices()
    x = (rng.normal(size=(classes, features))[y] + 1.5 * rng.normal(size=(nodes, features))).astype(
        np.float32
    )
    y = np.where(rng.random(nodes) < unlabelled, -1, y)
    return a, x, y.astype(np.int64)


def weighted(a, adj, degree, self_loops=True):
    """`norm`: D^-1/2 (A + I) D^-1/2 with the degrees given; `mean`: rows over their own count;
    `plain`, `+loops`."""
    if adj in ("plain", "sequence"):
        return a
    if adj == "plain+loops":
        return (a + sp.identity(a.shape[0])).tocsr()
    if adj == "mean":
        inside = np.maximum(np.asarray(a.sum(1)).ravel(), 1)
        return (sp.diags(1 / inside) @ a).tocsr()
    s = sp.diags((degree + self_loops) ** -0.5)
    return (s @ (a + sp.identity(a.shape[0]) * self_loops) @ s).tocsr()


def adj_of(matrix, dtype=torch.float32):
    def csr(m):
        m = m.tocsr()
        m.sort_indices()
        parts = (
            torch.from_numpy(m.indptr.astype(np.int32)),
            torch.from_numpy(m.indices.astype(np.int32)),
        )
        values = torch.from_numpy(np.asarray(m.data)).to(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CSR is in beta
            return torch.sparse_csr_tensor(*parts, values, m.shape, check_invariants=True)

    order = matrix.tocsr(copy=True)
    order.sort_indices()
    order.data = np.arange(1, order.nnz + 1)
    places = order.T.tocsr()
    places.sort_indices()
    return Adj(csr(matrix), csr(matrix.T), torch.from_numpy(places.data.astype(np.int32) - 1))


class Pack(MemoryReader):
    """Reader of one packed split: records of `per_record` outputs each."""

    def __init__(self, graph, outputs, per_record=20, **changes):
        self.graph, self.outputs = graph, np.sort(outputs)
        self.groups = [
            self.outputs[i : i + per_record] for i in range(0, len(self.outputs), per_record)
        ]
        a, x, y = graph
        facts = {
            "records": len(self.groups),
            "outputs": len(self.outputs),
            "num_features": x.shape[1],
            "num_classes": int(y.max()) + 1,
            "max_rows": a.shape[0],
            "max_edges": a.nnz,
            "bytes": 1000,
        }
        super().__init__({}, facts, digest=f"{len(self.outputs):032d}", **changes)

    def step(self, group, layers, adj, self_loops):
        a, x, y = self.graph
        degree = np.asarray(a.sum(1)).ravel()
        hops, seen = [group], set(group.tolist())
        for _ in range(layers):
            nodes = np.setdiff1d(a[hops[-1]].indices, list(seen))
            seen |= set(nodes.tolist())
            hops.append(nodes)
        ids = np.concatenate(hops)
        ends = np.cumsum([len(h) for h in hops])
        matrix = weighted(a[ids][:, ids], adj, degree[ids], self_loops)
        trimmed = [
            matrix[: ends[layer - 1], : ends[layer]].tocsr() for layer in range(layers, 0, -1)
        ]
        if adj == "sequence":
            adjs = [
                Adj(
                    Sequences(
                        m.indptr,
                        m.indices,
                        m.shape[1],
                        read_order(degree[ids[: m.shape[1]]], ids[: m.shape[1]]),
                    )
                )
                for m in trimmed
            ]
        else:
            adjs = [adj_of(m) for m in trimmed]
        where = torch.from_numpy(np.searchsorted(self.outputs, group))
        sizes = tuple(len(h) for h in hops)
        n_id = torch.from_numpy(ids.astype(np.int64))
        return Step(
            torch.from_numpy(x[ids]),
            adjs,
            torch.from_numpy(y[group]),
            n_id,
            where,
            sizes,
            len(group),
        )

    def batches(
        self, *, layers, adj, self_loops=True, per_step=1, shuffle=True, seed=0, **_options
    ):
        return Loader([self.step(g, layers, adj, self_loops) for g in self.groups], shuffle, seed)


class Loader:
    """Steps of an epoch in an order drawn from (seed, epoch); `hook(step number)` is called before
    each."""

    def __init__(self, steps, shuffle=True, seed=0, hook=None):
        self.steps, self.shuffle, self.seed, self.hook = steps, shuffle, seed, hook
        self.epoch = self.at = self.resume = 0

    def __len__(self):
        return len(self.steps)

    def __getitem__(self, i):
        return self.steps[i]

    def set_epoch(self, epoch):
        if epoch != self.epoch:
            self.epoch, self.at, self.resume = epoch, 0, 0

    def state_dict(self):
        return {"epoch": self.epoch, "step": self.at}

    def load_state_dict(self, state):
        self.epoch, self.at, self.resume = state["epoch"], state["step"], state["step"]

    def __iter__(self):
        order = np.arange(len(self.steps))
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.steps))
        self.at, self.resume = self.resume, 0
        for i in order[self.at :]:
            if self.hook is not None:
                self.hook(self.epoch, self.at)
            self.at += 1
            yield self.steps[i]


def splits(nodes, seed=0):
    """Sorted train, valid and test ids: half, a quarter, a quarter."""
    ids = np.random.default_rng(seed).permutation(nodes)
    return [np.sort(part) for part in np.split(ids, [nodes // 2, 3 * nodes // 4])]


def packs(seed=0, **options):
    """{"train", "valid", "test"} -> Pack of one community graph."""
    graph = community(seed=seed, **options)
    return {
        name: Pack(graph, ids)
        for name, ids in zip(("train", "valid", "test"), splits(graph[0].shape[0]), strict=True)
    }
