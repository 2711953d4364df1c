"""Sides of a training benchmark in processes of their own, which take turns epoch by epoch: what
slows the machine slows all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tests.bench.time_to_accuracy import Curve, Point

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Process", "Turns", "alternating", "not_installed"]

TRAINING = "tests.bench.training_child"
SAMPLED = ("dgl", "script")
"""Kinds of batches that need `--dgl`."""


def not_installed(kind: str, dgl: Path | None, graphbolt: str | None) -> str:
    """Why a peer cannot run here, "" where it can."""
    if kind in SAMPLED and not (dgl is not None and (dgl / "dgl").is_dir()):
        return "DGL is not installed: --dgl DIR"
    if kind == "graphbolt" and graphbolt is None:
        return "GraphBolt is not installed: --graphbolt DIR/bin/python"
    if kind == "neighbor-loader" and not any(map(find_spec, ("pyg_lib", "torch_sparse"))):
        return "neither pyg-lib nor torch-sparse is installed"
    return ""


class Turns:
    """One side, which does one thing each time it is asked, and what it has come to.

    Attributes
    ----------
    curve : a point for each epoch that was judged.
    seconds, train_seconds : since it began, with and without its own validations.
    epoch_seconds : of the training of each epoch.
    """

    def __init__(self, name: str, job: dict[str, Any]) -> None:
        self.name, self.job = name, job
        self.curve: Curve = []
        self.seconds = self.train_seconds = 0.0
        self.epoch_seconds: list[float] = []

    def ask(self, words: str = "") -> dict[str, Any]:
        """What the side answers to a line."""
        raise NotImplementedError

    def close(self) -> None:
        """Let it end."""

    def kill(self) -> None:
        """End it, whatever it is at."""

    def epoch(self) -> None:
        """Train one epoch; where it is judged, a point of the curve."""
        line = self.ask()
        self.seconds += line["seconds"]
        self.train_seconds += line["train_seconds"]
        self.epoch_seconds.append(line["train_seconds"])
        if "valid" in line:
            point = Point(self.seconds, self.train_seconds, line["valid"], line["test"])
            self.curve.append(point)


class Process(Turns):
    """One side, kept ready between its turns in a process of its own.

    Parameters
    ----------
    job : what `training_child` trains, see there. folder : where the job and messages are written.
    dgl : folder that DGL is installed in, for sides that need it.
    module : what runs in the process.
    """

    def __init__(
        self, name: str, job: dict[str, Any], folder: Path, dgl: Path | None,
        module: str = TRAINING,
    ) -> None:  # fmt: skip
        super().__init__(name, job)
        stem = f"{name}-{job['seed']}".replace(" ", "-").replace(",", "")
        path, self.messages = folder / f"{stem}.job.json", folder / f"{stem}.messages"
        path.write_text(json.dumps(job))
        env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        env["DGLBACKEND"] = "pytorch"
        if job["kind"] in SAMPLED:
            env["PYTHONPATH"] = os.pathsep.join(
                part for part in (env.get("PYTHONPATH", ""), str(dgl)) if part
            )
        command = [sys.executable, "-W", "ignore", "-m", module, str(path)]
        with self.messages.open("w") as messages:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, text=True,
                env=env,
            )  # fmt: skip
        self.seconds += self._line()["began"]
        self.train_seconds = self.seconds

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"{self.name}: it ended\n{self.messages.read_text()[-3000:]}")

    def ask(self, words: str = "") -> dict[str, Any]:
        """What the side answers to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def alternating(
    jobs: dict[str, dict[str, Any]],
    start: Callable[[str, dict[str, Any]], Turns],
    *,
    floors: bool = False,
    enough: float | None = None,
    most: float = float("inf"),
    over: Callable[[], bool] = lambda: False,
) -> dict[str, dict[str, Any]]:
    """Train all sides, an epoch of each in turn: {name: {"curve", "floor", "epochs"}}, the last
    the seconds that the training of each epoch took.

    Parameters
    ----------
    start : makes the side of a name and a job ready.
    floors : whether the dense products of an epoch are counted, and their rate measured.
    enough, most : a side ends early at this validation accuracy, or once it took so many seconds.
    over : asked after every epoch of all; all sides end where it says so.
    """
    sides: list[Turns] = []
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, job in jobs.items():
            sides.append(start(name, job))
        waiting = {side.name: side for side in sides}
        done = 0
        while waiting:
            done += 1
            for side in waiting.values():
                side.epoch()
            last = over()
            for name, side in list(waiting.items()):
                good = enough is not None and side.curve and side.curve[-1].valid >= enough
                if last or done >= side.job["epochs"] or side.seconds > most or good:
                    floor = side.ask("floor") if floors and not last else None
                    found[name] = {"curve": side.curve, "floor": floor,
                                   "epochs": side.epoch_seconds}  # fmt: skip
                    side.close()
                    del waiting[name]
    finally:
        for side in sides:
            side.kill()
    return found
