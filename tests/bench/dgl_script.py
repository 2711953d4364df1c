"""DGL's GraphSAGE example as its users run it, behind the interface of `training_side.Side`.

`examples/pytorch/graphsage/node_classification.py` of DGL 1.1: three `SAGEConv` of 256, ReLU and
dropout of 0.5 between them, fanouts 10, 10, 10, batches of 1,024 in training and validation, Adam
at 1e-3 with a weight decay of 5e-4. The loader brings features and labels with each block.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stockpot.stages.train.evaluate import Score, score
from tests.bench.training_side import CPU, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN, LAYERS, DROPOUT = 256, 3, 0.5
FANOUTS, BATCH = [10, 10, 10], 1024
LR, WEIGHT_DECAY, EPOCHS = 1e-3, 5e-4, 10


class Sage(nn.Module):
    """Mean aggregation by DGL's own layers; one block a layer."""

    def __init__(self, columns: int, classes: int) -> None:
        import dgl

        super().__init__()
        sizes = [columns, *[HIDDEN] * (LAYERS - 1), classes]
        self.layers = nn.ModuleList(
            dgl.nn.SAGEConv(sizes[i], sizes[i + 1], "mean") for i in range(LAYERS)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, blocks: Any, h: torch.Tensor) -> torch.Tensor:
        for i, (layer, block) in enumerate(zip(self.layers, blocks, strict=True)):
            h = layer(block, h)
            if i < LAYERS - 1:
                h = self.dropout(functional.relu(h))
        return h


class Loaders:
    """The example's two loaders."""

    outside = 0.0

    def __init__(self, graph: Any, ids: dict[str, torch.Tensor]) -> None:
        import dgl

        sampler = dgl.dataloading.NeighborSampler(
            FANOUTS, prefetch_node_feats=["feat"], prefetch_labels=["label"]
        )
        self.loaders = {
            name: dgl.dataloading.DataLoader(
                graph, ids[name], sampler, batch_size=BATCH, shuffle=True, drop_last=False,
                num_workers=0,
            )
            for name in ("train", "valid")
        }  # fmt: skip

    def _of(self, name: str) -> Iterator[Any]:
        for _, _, blocks in self.loaders[name]:
            yield blocks[0].srcdata["feat"], blocks, blocks[-1].dstdata["label"]

    def train(self, epoch: int) -> Iterator[Any]:
        del epoch
        yield from self._of("train")

    def valid(self) -> Iterator[Any]:
        yield from self._of("valid")


class Script(Side):
    """The example, its own model and loop."""

    def __init__(self, job: dict[str, Any]) -> None:
        import dgl

        self.job, self.device = job, CPU
        with np.load(job["graph"]) as z:
            self.graph = {name: z[name] for name in z.files}
        self.x = torch.from_numpy(np.load(job["features"]))
        started = time.process_time()
        torch.manual_seed(job["seed"])
        dgl.seed(job["seed"])
        parts = (torch.from_numpy(self.graph[name].astype(np.int64))
                 for name in ("indptr", "indices"))  # fmt: skip
        whole = dgl.graph(("csc", (*parts, torch.tensor([], dtype=torch.int64))))
        whole.ndata["feat"] = self.x
        whole.ndata["label"] = torch.from_numpy(self.graph["y"].astype(np.int64))
        self.whole = whole
        ids = {name: torch.from_numpy(self.graph[name].astype(np.int64))
               for name in ("train", "valid")}  # fmt: skip
        self.model = Sage(self.x.shape[1], job["config"]["num_classes"])
        self.adam = torch.optim.Adam(self.model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
        self.batches = Loaders(whole, ids)
        self.began = time.process_time() - started
        self.epoch = 0

    def step(self, batch: Any) -> None:
        x, blocks, y = batch
        loss = functional.cross_entropy(self.model(blocks, x), y)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        loss.item()

    @torch.no_grad()
    def validate(self, most: int | None = None) -> Score:
        self.model.eval()
        total = Score()
        for i, (x, blocks, y) in enumerate(self.batches.valid()):
            if i == most:
                break
            total += score(self.model(blocks, x), y)
        self.model.train()
        return total

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        return self.model([self.whole] * LAYERS, self.x)

    def save(self, path: str) -> None:
        torch.save(self.model.state_dict(), path)
