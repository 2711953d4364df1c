"""Batches on a device: packed records that stay there or come by the loader, a peer's sampled
batches that are drawn on the CPU and copied while the one before is computed on, and the whole
graph."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from stockpot.locate import artifact_of
from stockpot.stages.loader.options import Delivery, Schedule, Source
from stockpot.stages.loader.prefetch import Prefetch
from stockpot.stages.loader.transfer import Transfer, checked_device, tensors_of
from stockpot.stages.step import Adj
from stockpot.stages.train.evaluate import open_steps
from tests.bench.training_batches import BATCHES, VALID_TIMES, Batch, Full

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.loader.steps import Steps
    from stockpot.stages.pack.layers import Matrix

__all__ = ["DEVICE_BATCHES", "Fed", "Records", "Resident", "WholeGraph", "inference_steps"]

AHEAD = 2
"""Batches that are on their way to the device while one is computed on."""


def step_bytes(step: Any) -> int:
    """Bytes of the tensors of a step; what two matrices share counts once."""
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in tensors_of(step)}
    return sum(sizes.values())


class Resident:
    """Steps of packed records, made once and kept on their device where they fit in `most` bytes;
    where not, the loader brings them, copied while the step before is computed on.

    Attributes
    ----------
    kept : steps by the number of their record; None where the loader brings them.
    bytes : that the kept ones take.
    """

    def __init__(self, steps: Steps, most: int, rounds: int = 1) -> None:
        if steps.schedule.per_step != 1:
            raise ValueError("steps of several records differ from epoch to epoch: none is kept")
        self.steps, self.bytes = steps, 0
        self.kept: dict[int, Batch] | None = {}
        for planned in (one for epoch in range(rounds) for one in steps.plan(epoch)):
            step = steps.make(planned)
            self.bytes += step_bytes((step.x, step.adjs, step.y))
            if self.bytes > most:
                self.kept, self.bytes = None, 0
                return
            self.kept[planned[0][0]] = (step.x, step.adjs, step.y)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        if self.kept is not None:
            yield from (self.kept[record] for (record,), _ in self.steps.plan(epoch))
            return
        with closing(self.steps.walk(epoch)) as steps:
            yield from ((step.x, step.adjs, step.y) for step in steps)


class Records:
    """Packed records of a stockpot run on the job's device; `job["resident"]`: most bytes of them
    that stay there, 0 has all brought by the loader."""

    outside = 0.0

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        del graph, x
        run = Path(job["run"])
        nodes = {"train": "pack:train", "valid": "pack:valid", "order": "order"}
        inputs = {name: artifact_of(run, node) for name, node in nodes.items()}
        source = Source.from_reader(inputs["train"], inputs["order"])
        way = Delivery(prefetch=AHEAD, device=job["device"])
        order, file = Schedule(seed=job["seed"]), Schedule(shuffle=False)
        train = open_steps(source, model, order, way, training=True)
        self.train_steps = Resident(train, job["resident"], source.records.rounds)
        left = max(0, job["resident"] - self.train_steps.bytes)
        self.valid_steps = Resident(open_steps(inputs["valid"], model, file, way), left)

    def train(self, epoch: int) -> Iterator[Batch]:
        yield from self.train_steps.epoch(epoch)

    def valid(self) -> Iterator[Batch]:
        yield from self.valid_steps.epoch(0)


def inference_steps(run: Path, model: Any, device: str, most: int) -> Resident:
    """Steps of a run's inference records."""
    way = Delivery(prefetch=AHEAD, device=device)
    pack = artifact_of(run, "pack:infer")
    return Resident(open_steps(pack, model, Schedule(shuffle=False), way), most)


class Drawn(Dataset[Any]):
    """A peer's batches as plain tensors, by (seeds, whether they are trained on); its sampler is
    opened in the process that draws."""

    def __init__(self, job: dict[str, Any], transposes: str) -> None:
        self.job, self.transposes = job, transposes
        self.sampler: Any = None

    def __getitem__(self, asked: tuple[NDArray[np.int64], bool]) -> Any:
        if self.sampler is None:
            worker = get_worker_info()
            job = dict(self.job)
            if worker is not None:  # each draws others, with one thread
                job["seed"] = job["seed"] * 1000 + worker.id
                if job["kind"] == "dgl":
                    import dgl

                    dgl.utils.set_num_threads(1)
            with np.load(job["graph"]) as z:
                graph = {name: z[name] for name in z.files}
            model = SimpleNamespace(transposes=self.transposes)
            self.sampler = self.opened(job, model, graph)
        seeds, training = asked
        nodes, layers = self.sampler.matrices(seeds, training=training)
        return torch.as_tensor(nodes), [tuple(map(_parts, pair)) for pair in layers]

    @staticmethod
    def opened(job: dict[str, Any], model: Any, graph: Any) -> Any:
        """The peer's sampler, without features."""
        return BATCHES[job["kind"]](job, model, graph, None)


def _parts(matrix: Matrix | None) -> Any:
    if matrix is None:
        return None
    arrays = matrix.indptr, matrix.indices, matrix.values
    return (*map(torch.from_numpy, arrays), matrix.shape)


class Fed:
    """Batches of a peer's sampler, drawn by `job["workers"]` processes (0: by the thread that
    copies), features and labels resident on the device. To start the processes and to open the
    sampler costs the side nothing."""

    drawn = Drawn

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        self.job, self.x = job, x
        self.transfer = Transfer(checked_device(job["device"]))
        self.y = torch.from_numpy(np.asarray(graph["y"], np.int64)).to(x.device)
        self.ids = {name: np.asarray(graph[name], np.int64) for name in ("train", "valid")}
        self.rng = np.random.default_rng(job["seed"])
        self.dataset = self.drawn(job, model.transposes)
        self.asked: list[tuple[NDArray[np.int64], bool]] = []
        self.loader: DataLoader[Any] | None = None
        if job["workers"]:
            # A server that has never seen the device starts the processes.
            context = torch.multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__, *(["dgl"] if job["kind"] == "dgl" else [])])
            self.loader = DataLoader(
                self.dataset, batch_size=None, sampler=self, num_workers=job["workers"],
                persistent_workers=True, multiprocessing_context=context, prefetch_factor=2,
            )  # fmt: skip
        started = time.perf_counter()
        first = self._lists(self.ids["valid"][: job["batch"]], job["batch"])
        for _ in self._batches(first * max(1, job["workers"]), training=False):
            pass  # every process draws one
        self.outside = started - time.perf_counter()

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], bool]]:
        return iter(self.asked)  # the loader's order: what the epoch asks for

    def __len__(self) -> int:
        return len(self.asked)

    def _batches(self, lists: Sequence[NDArray[np.int64]], *, training: bool) -> Iterator[Batch]:
        self.asked = [(seeds, training) for seeds in lists]
        drawn = iter(self.loader) if self.loader is not None else map(
            self.dataset.__getitem__, self.asked
        )  # fmt: skip
        ahead = Prefetch(lambda seeds: self.transfer.sent(lambda: self._on_device(*next(drawn),
                         seeds)), lists, AHEAD)  # fmt: skip
        try:
            for sent in ahead:
                yield self.transfer.received(sent)
        finally:
            ahead.close()

    def _on_device(self, nodes: torch.Tensor, layers: Any, seeds: NDArray[np.int64]) -> Batch:
        moved = self.transfer.moved
        adjs = [
            Adj(*(None if parts is None else self._csr(*parts) for parts in pair))
            for pair in layers
        ]
        return self.x[moved(nodes)], adjs, self.y[moved(torch.from_numpy(seeds))]

    def _csr(self, *parts: Any) -> torch.Tensor:
        *tensors, shape = parts
        return torch.sparse_csr_tensor(
            *map(self.transfer.moved, tensors), size=tuple(shape), check_invariants=False
        )

    @staticmethod
    def _lists(ids: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        return [ids[start : start + size] for start in range(0, len(ids), size)]

    def train(self, epoch: int) -> Iterator[Batch]:
        del epoch
        ids = self.rng.permutation(self.ids["train"])
        yield from self._batches(self._lists(ids, self.job["batch"]), training=True)

    def valid(self) -> Iterator[Batch]:
        lists = self._lists(self.ids["valid"], VALID_TIMES * self.job["batch"])
        yield from self._batches(lists, training=False)


class WholeGraph(Full):
    """The whole graph as one step, on the device of its features."""

    def __init__(self, job: dict[str, Any], model: Any, graph: Any, x: torch.Tensor) -> None:
        super().__init__(job, model, graph, x)
        self.adj = Adj(*(part.to(x.device) for part in (self.adj.csr, self.adj.t_csr)))
        self.y = {name: y.to(x.device) for name, y in self.y.items()}


DEVICE_BATCHES: dict[str, Any] = {
    "stockpot": Records,
    "dgl": Fed,
    "graphbolt": Fed,
    "full": WholeGraph,
}
