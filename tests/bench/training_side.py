"""One side of `make bench-train`: a model, its optimiser and its batches, trained epoch by epoch.

A job names the batches (`training_batches.BATCHES`, or "script": DGL's own example), the model, the
optimiser's rate and schedule, and the files. CPU seconds of an epoch are those of its training and
of a validation by the side's own batches. Every `every`-th epoch is judged: accuracy by exact
inference on the whole graph, by the same code for all sides, in nobody's seconds.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from stockpot.stages.infer.full_graph import full_graph_logits
from stockpot.stages.kernels.precision import products
from stockpot.stages.train.evaluate import Score, score
from stockpot.stages.train.model import build_model, save_model
from stockpot.stages.train.trainer import PLATEAU, PLATEAU_FLOOR
from tests.bench.training_batches import BATCHES, Batch, whole_graph

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")


class DenseProducts(TorchDispatchMode):
    """Counts the operations of products of dense matrices, backward passes included; a product
    with a sparse matrix is none."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        names = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
        if func in names:
            a, b = args[names[func] : names[func] + 2]
            if a.layout == b.layout == torch.strided:
                self.operations += 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
        return func(*args, **(kwargs or {}))


def gemm_rate(
    precision: str,
    turns: int = 20,
    device: torch.device = CPU,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Operations a second of products f4[4096, 256] x f4[256, 256]: the fastest of some."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(rows, 256).to(device, kind) for rows in (4096, 256))
    taken = []
    for _ in range(turns):
        started = clock()
        for _ in range(4):
            a @ b
        taken.append(clock() - started)
    return 4 * 2 * 4096 * 256 * 256 / min(taken)


class Sign(nn.Module):
    """SIGN (arXiv 2004.11198) much as torch_geometric's example has it: a linear map of each hop,
    then an MLP of all of them. x is f4[n, hops * columns]."""

    transposes = "none"

    def __init__(self, hops: int, columns: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.columns, self.dropout = columns, dropout
        self.lins = nn.ModuleList(nn.Linear(columns, hidden) for _ in range(hops))
        self.mix = nn.Linear(hops * hidden, hidden)
        self.out = nn.Linear(hidden, classes)
        self.generator: torch.Generator | None = None

    def forward(self, x: torch.Tensor, adjs: Any = None) -> torch.Tensor:
        del adjs
        parts = [lin(part) for lin, part in zip(self.lins, x.split(self.columns, 1), strict=True)]
        for layer in (self.mix, self.out):
            whole = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
            parts = [layer(functional.dropout(whole.relu(), self.dropout, self.training))]
        return parts[0]


class Side:
    """A model of stockpot's, or SIGN, on batches of one kind."""

    kinds = BATCHES

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, config = job, job["config"]
        self.device = torch.device(job.get("device", "cpu"))
        with np.load(job["graph"]) as z:
            self.graph = {name: z[name] for name in z.files}
        self.x = torch.from_numpy(np.load(job["features"])).to(self.device)
        started = self.now()
        torch.manual_seed(job["seed"])
        self.model: Any
        if job["kind"] == "sign":
            hops = self.x.shape[1] // job["columns"]
            sizes = hops, job["columns"], config["hidden"], config["num_classes"]
            self.model = Sign(*sizes, config["dropout"])
        else:
            self.model = build_model(config, seed=job["seed"])
        self.model.to(self.device)
        self.model.generator = torch.Generator(self.device).manual_seed(job["seed"])
        self.adam = torch.optim.Adam(self.model.parameters(), lr=job["lr"], fused=True)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.adam, min_lr=PLATEAU_FLOOR * job["lr"], **PLATEAU
        )
        self.batches = self.opened()
        self.began = self.now() - started + self.batches.outside
        self.epoch = 0

    def opened(self) -> Any:
        """Its batches."""
        return self.kinds[self.job["kind"]](self.job, self.model, self.graph, self.x)

    @staticmethod
    def now() -> float:
        """CPU seconds of this process."""
        return time.process_time()

    def clock(self) -> float:
        return self.now() + self.batches.outside

    def step(self, batch: Batch) -> None:
        x, adjs, y = batch
        with products(self.job["precision"], self.device):
            logits = self.model(x, adjs).float()
        loss = functional.cross_entropy(logits, y, ignore_index=-1)
        self.seen(loss.detach())
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()

    def seen(self, loss: torch.Tensor) -> None:
        """Refuse a loss that is no finite number."""
        if not math.isfinite(float(loss)):
            raise ValueError(f"epoch {self.epoch}: the loss is {float(loss)}")

    def warm(self) -> None:
        """One step and one batch of a validation."""
        self.step(next(iter(self.batches.train(0))))
        self.validate(most=1)

    def train(self) -> None:
        if self.job["schedule"] == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * self.epoch / self.job["epochs"]))
            self.adam.param_groups[0]["lr"] = self.job["lr"] * share
        self.model.train()
        for batch in self.batches.train(self.epoch):
            self.step(batch)
        self.epoch += 1

    @torch.no_grad()
    def validate(self, most: int | None = None) -> Score:
        self.model.eval()
        total = Score()
        for i, (x, adjs, y) in enumerate(self.batches.valid()):
            if i == most:
                break
            total += score(self.model(x, adjs), y)
        self.model.train()
        return total

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        """Exact ones of all nodes."""
        if self.job["kind"] == "sign":
            return self.model(self.x)
        return full_graph_logits(self.model, whole_graph(self.graph, self.job["config"]), self.x)

    def judged(self) -> dict[str, float]:
        """Accuracy of exact inference on the validation and the test nodes."""
        self.model.eval()
        right = self.logits().argmax(1).cpu().numpy() == self.graph["y"]
        self.model.train()
        return {name: float(right[self.graph[name]].mean()) for name in ("valid", "test")}

    def turn(self) -> dict[str, Any]:
        """One epoch: what it took, and what it came to where it is judged."""
        started = self.clock()
        self.train()
        trained = self.clock()
        own = self.validate()
        if self.job["schedule"] == "plateau":
            self.plateau.step(own.loss)
        line: dict[str, Any] = {
            "epoch": self.epoch,
            "train_seconds": trained - started,
            "seconds": self.clock() - started,
            "own_valid": own.accuracy,
        }
        if self.epoch % self.job["every"] == 0 or self.epoch == self.job["epochs"]:
            line |= self.judged()
        return line

    def floor(self) -> dict[str, float]:
        """Of one more epoch, without validation: operations of its dense products, and the seconds
        that they take at the rate of one large product."""
        with DenseProducts() as counted:
            self.train()
        rate = gemm_rate(self.job["precision"], device=self.device, clock=self.now)
        seconds = counted.operations / rate
        return {"operations": counted.operations, "seconds": seconds}

    def save(self, path: str) -> None:
        save_model(Path(path), self.model, {})
