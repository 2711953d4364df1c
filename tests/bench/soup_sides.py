"""The two sides of the benchmark of souping: packed validation records, and the whole graph in
every pass."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

__all__ = ["Graph", "Records"]


class Records:
    """Our side: ingredients and the packed validation records."""

    def __init__(self, run: Path, paths: list[Path]) -> None:
        from stockpot.locate import artifact_of
        from stockpot.stages.loader.options import Schedule
        from stockpot.stages.soup.kept_batches import Batches
        from stockpot.stages.soup.scorer import Scorer
        from stockpot.stages.soup.stack import Stack
        from stockpot.stages.train.evaluate import open_steps
        from stockpot.stages.train.model import build_model
        from stockpot.stages.train.state import read_state

        states = [read_state(path) for path in paths]
        model = build_model(states[0][1]["config"])
        self.stack = Stack([state for state, _ in states], model)
        steps = open_steps(
            artifact_of(run, "pack:valid"), model, Schedule(shuffle=False), training=True
        )
        self.scorer = Scorer(model, self.stack, Batches(model, steps, 1 << 28))
        self.run, self._test = run, None

    def test(self, alpha) -> float:
        """Accuracy on the test records, as `infer` reads them."""
        from stockpot.locate import artifact_of
        from stockpot.stages.loader.options import Schedule
        from stockpot.stages.train.evaluate import evaluate, open_steps

        if self._test is None:
            self._test = list(
                open_steps(
                    artifact_of(self.run, "pack:test"), self.scorer.model, Schedule(shuffle=False)
                )
            )
        self.scorer.put(alpha)
        return evaluate(self.scorer.model, self._test).accuracy


class Graph:
    """The peer's side: the same ingredients and the whole graph, every node in every pass."""

    def __init__(self, run: Path, paths: list[Path]) -> None:
        import torch

        from stockpot.locate import artifact_of
        from stockpot.stages.codec.node_rows import NodeRows
        from stockpot.stages.loader.assembly import csr_tensor, quiet_csr
        from stockpot.stages.soup.stack import Stack
        from stockpot.stages.step import Adj
        from stockpot.stages.train.model import build_model
        from stockpot.stages.train.state import read_state

        quiet_csr()
        states = [read_state(path) for path in paths]
        self.config = states[0][1]["config"]
        self.model = build_model(self.config).eval()
        self.stack = Stack([state for state, _ in states], self.model)
        graph, split = artifact_of(run, "ingest"), artifact_of(run, "split")
        self.indptr, self.indices = graph.array("indptr"), graph.array("indices")
        matrix = self._matrix(self.indptr, self.indices)
        self.adj = Adj(csr_tensor(matrix))
        self.x = torch.from_numpy(NodeRows(artifact_of(run, "quantize")).all())
        self.y = torch.from_numpy(graph.array("y").astype(np.int64))
        self.ids = {
            name: torch.from_numpy(split.array(name).astype(np.int64)) for name in ("valid", "test")
        }

    def _matrix(self, indptr, indices):
        from stockpot.stages.pack.layers import adjacency

        c = self.config
        options = {
            "normalization": c["normalization"],
            "mass": c["mass"],
            "self_loops": c["self_loops"],
        }
        return adjacency(indptr, indices, adj=self.model.adj, **options)

    def accuracy(self, alpha, split="valid") -> float:
        """One pass over the whole graph."""
        import torch

        self.stack.mix(alpha, self.stack.parameters)
        ids = self.ids[split]
        with torch.no_grad():
            found = self.model(self.x, self.adj)[ids].argmax(1)
        y = self.y[ids]
        return float((found == y)[y >= 0].float().mean())

    def gradient(self, alpha, beta, step):
        """As `Scorer.gradient`, of a step (x, adj, ids of its validation nodes, y)."""
        import torch
        from torch.nn import functional

        x, adj, ids, y = step
        self.stack.mix(alpha, self.stack.parameters)
        beta_leaf = torch.tensor(beta, requires_grad=True)
        for p in self.stack.parameters.values():
            p.grad = None
        loss = functional.cross_entropy(beta_leaf * self.model(x, adj)[ids], y, ignore_index=-1)
        loss.backward()
        inner = self.stack.inner({name: p.grad for name, p in self.stack.parameters.items()})
        return float(loss.detach()), inner, float(beta_leaf.grad)

    def whole(self):
        """The whole graph with what a backward pass reads."""
        ids = self.ids["valid"]
        if self.adj.t_csr is None:
            self.adj = self._adj(self.indptr, self.indices)
        return self.x, self.adj, ids, self.y[ids]

    def _adj(self, indptr, indices):
        import torch

        from stockpot.stages.loader.assembly import csr_tensor
        from stockpot.stages.step import Adj

        matrix = self._matrix(indptr, indices)
        turned, places = matrix.turned()
        return Adj(csr_tensor(matrix), csr_tensor(turned), torch.from_numpy(places))

    def parts(self, count: int):
        """METIS parts of about equally many validation nodes.

        The authors balance validation nodes and edges as two constraints, pymetis takes one: a
        validation node weighs ten times its share of the nodes.
        """
        from stockpot.stages.partition.solver import solve

        nodes, valid = len(self.indptr) - 1, self.ids["valid"].numpy()
        weight = np.ones(nodes, np.int64)
        weight[valid] += 10 * nodes // max(1, len(valid))
        with tempfile.TemporaryDirectory() as folder:
            return solve(
                self.indptr, self.indices, count, seed=0, folder=Path(folder), node_weight=weight
            )

    def union(self, part, drawn):
        """The subgraph of some parts: the edges between them are there, those to others are not."""
        import scipy.sparse as sp
        import torch

        n = len(self.indptr) - 1
        nodes = np.flatnonzero(np.isin(part, drawn))
        a = sp.csr_matrix(
            (np.ones(len(self.indices), np.float32), self.indices, self.indptr), (n, n)
        )[nodes][:, nodes]
        a.sort_indices()
        adj = self._adj(a.indptr.astype(np.int64), a.indices.astype(np.int32))
        ids = np.flatnonzero(np.isin(nodes, self.ids["valid"].numpy()))
        return self.x[nodes], adj, torch.from_numpy(ids), self.y[torch.from_numpy(nodes[ids])]
