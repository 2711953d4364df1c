"""One side of `make bench-cuda`, in the process of the benchmark: a model, its optimiser and its
batches on a device, in wall seconds between synchronisations.

Sides differ in their batches alone. No step waits for the device: losses are looked at after an
epoch, counts of a validation are read once at its end, on all sides alike.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from stockpot.stages.train.evaluate import Score
from stockpot.stages.train.model import load_model
from tests.bench.cuda_batches import DEVICE_BATCHES, Fed, inference_steps
from tests.bench.training_process import TRAINING, Turns
from tests.bench.training_side import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.bench.training_batches import Batch

__all__ = ["DeviceSide", "Here", "predicting", "scored", "synchronised"]


def synchronised(device: torch.device) -> float:
    """Wall seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def scored(model: Any, batches: Iterable[Batch]) -> Score:
    """Score over the outputs of all batches, read from their device once."""
    counts: Any = 0
    for x, adjs, y in batches:
        logits = model(x, adjs)
        loss = functional.cross_entropy(logits, y, ignore_index=-1, reduction="sum")
        parts = (logits.argmax(1) == y).sum(), (y >= 0).sum(), loss
        counts = counts + torch.stack([part.double() for part in parts])
    correct, labelled, total = counts.tolist()
    return Score(int(correct), int(labelled), total)


class DeviceSide(Side):
    """A side of `make bench-train` on the job's device.

    Parameters
    ----------
    batches : that are open already; None opens those of the job.
    """

    kinds = DEVICE_BATCHES

    def __init__(self, job: dict[str, Any], batches: Any = None) -> None:
        self.loss: Any = 0.0
        self.given = batches
        super().__init__(job)

    def opened(self) -> Any:
        return super().opened() if self.given is None else self.given

    def now(self) -> float:
        """Wall seconds."""
        return synchronised(self.device)

    def seen(self, loss: torch.Tensor) -> None:
        self.loss = self.loss + loss

    def train(self) -> None:
        self.loss = 0.0
        super().train()
        super().seen(torch.as_tensor(self.loss))

    def validate(self, most: int | None = None) -> Score:
        del most
        self.model.eval()
        total = scored(self.model, self.batches.valid())
        self.model.train()
        return total


def predicting(job: dict[str, Any]) -> Callable[[], Score]:
    """What predicts the nodes of `job["ids"]` once: from resident records, from records by the
    loader ("streamed"), by a peer's batches, or from one pass over the whole graph ("full")."""
    device = torch.device(job["device"])
    model: Any = load_model(Path(job["weights"])).to(device).eval()
    if job["kind"] in ("records", "streamed"):
        most = job["resident"] if job["kind"] == "records" else 0
        steps = inference_steps(Path(job["run"]), model, job["device"], most)
        if job["kind"] == "records" and steps.kept is None:
            print("  records of the inference do not fit: the loader brings them", flush=True)
        return lambda: scored(model, steps.epoch(0))
    with np.load(job["graph"]) as z:
        graph = {name: z[name] for name in z.files}
    x, ids = torch.from_numpy(np.load(job["features"])).to(device), np.load(job["ids"])
    kind = DEVICE_BATCHES[job["kind"]]
    batches = kind(job | {"config": model.config}, model, graph | {"valid": ids}, x)
    return lambda: scored(model, batches.valid())


class Here(Turns):
    """A side in this process, behind the interface of `training_process.Process`."""

    def __init__(self, name: str, job: dict[str, Any], module: str = TRAINING) -> None:
        super().__init__(name, job)
        self.side: DeviceSide | None = None
        self.predict: Callable[[], Score] | None = None
        if module == TRAINING:
            first = DeviceSide(job)
            first.warm()
            fed = first.batches if isinstance(first.batches, Fed) else None
            if fed is not None:  # its processes are not started again
                fed.outside = 0.0
            del first
            self.side = DeviceSide(job, fed)
            self.seconds = self.train_seconds = self.side.began
        else:
            self.predict = predicting(job)
            self.predict()

    def ask(self, words: str = "") -> dict[str, Any]:
        if self.predict is not None:
            device = torch.device(self.job["device"])
            started = synchronised(device)
            total = self.predict()
            return {"seconds": synchronised(device) - started, "accuracy": total.accuracy}
        assert self.side is not None
        if words.startswith("save "):
            self.side.save(words.split(maxsplit=1)[1])
            return {"saved": True}
        return self.side.floor() if words == "floor" else self.side.turn()

    def close(self) -> None:
        """Give its memory back to the device."""
        self.side = self.predict = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    kill = close
