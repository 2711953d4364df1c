"""What narrows the gap between nodes that a student was taught and others: one change at a time, on
a run that is there.

    python -m tests.bench.student runs/wordnet                # kept out and judged: valid nodes
    python -m tests.bench.student runs/wordnet --kept test    # the test nodes, of what was chosen

Each line is a student that is not taught the nodes of `--kept`: its accuracy on these and on the
training nodes, and how often it agrees with its teacher on those kept out. Settings are chosen by
`valid`; `test` is for the figure of what was chosen. Rows may hold more than the stored ones:
further hops (`student.hops`), and tried here alone, the logarithm of the degree and the mean of the
neighbours' probabilities by the teacher.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from stockpot.locate import artifact_of
from stockpot.stages.codec.node_rows import NodeRows
from stockpot.stages.pack.layers import Weights
from stockpot.stages.propagate.hops import Propagation
from stockpot.stages.student.lesson import Lesson
from stockpot.stages.student.teacher import teacher_probabilities
from stockpot.stages.student.teaching import predicted, taught
from stockpot.stages.train.evaluate import settings
from stockpot.stages.train.model import load_model
from stockpot.store.run_folder import read_run

BASE = Lesson(hidden=512, epochs=40, dropout=0.2, noise=0.0)
LESSONS = {
    "base": {},
    "dropout 0": {"dropout": 0.0},
    "dropout 0.4": {"dropout": 0.4},
    "noise 0.1": {"noise": 0.1},
    "noise 0.3": {"noise": 0.3},
    "hidden 1024": {"hidden": 1024},
}
NEAR = "neighbours' probabilities"
ROWS = ("1 hop more", "2 hops more", "degree", NEAR, f"1 hop more + {NEAR}")


class Taught:
    """A run's rows, teachers and splits."""

    def __init__(self, run: Path, threads: int, models: list[Path]) -> None:
        self.run, self.threads, self.models = run, threads, models
        codes, self.graph = artifact_of(run, "quantize"), artifact_of(run, "ingest")
        self.x = NodeRows(codes).all()
        self.products = codes.facts["propagated"]
        self.y = self.graph.array("y")
        split = artifact_of(run, "split")
        self.ids = {name: np.asarray(split.array(name)) for name in ("train", "valid", "test")}

    @cache  # noqa: B019 - one run a process
    def targets(self, teacher: str) -> np.ndarray:
        """Probabilities of all nodes by "soup" or "ensemble"; by files, where some are named."""
        paths = self.models
        if not paths and teacher == "soup":
            paths = [artifact_of(self.run, "soup").path("chosen.safetensors")]
        if not paths:
            singles = [n for n in read_run(self.run)["artifacts"] if n.startswith("train:")]
            paths = [artifact_of(self.run, name).path("model.safetensors") for name in singles]
        models = [(load_model(path), 1) for path in paths]
        return teacher_probabilities(models, self.graph, torch.from_numpy(self.x))

    def matrix(self) -> Propagation:
        names = ("adj", "normalization", "self_loops")
        adj, normalization, loops = (self.products[name] for name in names)
        how = Weights(adj, normalization if adj == "norm" else "none", "none", loops)
        weight = self.graph.array("weight") if self.graph.has("weight") else None
        return Propagation(how, self.graph.array("indptr"), self.graph.array("indices"), weight)

    def rows(self, more: str, teacher: str) -> np.ndarray:
        """The stored rows, and beside them what is tried, its parts joined by " + "."""
        beside: list[np.ndarray] = []
        for part in filter(None, more.split(" + ")):
            if part == "degree":
                degree = np.diff(self.graph.array("indptr"))
                beside.append(np.log1p(degree).astype(np.float32)[:, None])
                continue
            by_hop = part.endswith("more")
            last = self.x[:, -int(self.products["own_columns"]) :]
            source = np.ascontiguousarray(last) if by_hop else self.targets(teacher)
            for _ in range(int(part[0]) if by_hop else 1):
                beside.append(np.empty_like(source))
                self.matrix().times(source, beside[-1], self.threads)
                source = beside[-1]
        return np.concatenate([self.x, *beside], axis=1)

    def accuracy(self, label: np.ndarray, split: str) -> float:
        ids = self.ids[split]
        known = self.y[ids] >= 0
        return float((label[ids] == self.y[ids])[known].mean())


def arms(run: Taught) -> list[tuple[str, str, str, Lesson]]:
    """(name, teacher, further columns, lesson)."""
    found = [(name, "ensemble", "", replace(BASE, **lesson)) for name, lesson in LESSONS.items()]
    found += [("teacher soup", "soup", "", BASE)] if not run.models else []
    return found + [(more, "ensemble", more, BASE) for more in ROWS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run with features.propagate")
    parser.add_argument("--kept", choices=("valid", "test"), default="valid")
    parser.add_argument("--arms", nargs="*", help="lines, by name; all without")
    parser.add_argument("--epochs", type=int, default=BASE.epochs)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="teachers, by file")
    asked = parser.parse_args()
    with settings(asked.threads):
        run = Taught(asked.run, asked.threads, asked.models)
        for name in ("ensemble",) if asked.models else ("soup", "ensemble"):
            label = run.targets(name).argmax(1)
            figures = ", ".join(f"{s} {100 * run.accuracy(label, s):.2f}" for s in run.ids)
            print(f"teacher {name}: {figures}", flush=True)
        everyone, out = np.arange(len(run.x)), run.ids[asked.kept]
        for name, teacher, more, lesson in arms(run):
            if asked.arms and name not in asked.arms:
                continue
            x, targets = run.rows(more, teacher), run.targets(teacher)
            started = time.process_time()
            ids = np.delete(everyone, out)
            student = taught(x, targets, ids, replace(lesson, epochs=asked.epochs))
            spent = time.process_time() - started
            label = predicted(student, x).argmax(1)
            agreed = float((label[out] == targets[out].argmax(1)).mean())
            print(
                f"{name:28}  kept-out {asked.kept} {100 * run.accuracy(label, asked.kept):.2f}  "
                f"agrees {100 * agreed:.2f}  train {100 * run.accuracy(label, 'train'):.2f}  "
                f"{spent:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
