"""One graph at one label rate of `make bench-train`: its records, the jobs of its sides, and the
settings that either side takes on validation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.bench.time_to_accuracy import Curve, Point, mean_curve, reached
from tests.bench.training_graphs import Built, Graph, built, outputs, peer_files
from tests.bench.training_process import TRAINING, Process, Turns, alternating

if TYPE_CHECKING:
    import argparse

__all__ = [
    "RATES",
    "TUNING_SEED",
    "WITHIN",
    "Case",
    "our_setting",
    "peer_setting",
    "repeated",
    "settings",
]

RATES = (3e-3, 1e-2)
LENGTHS = (0.5, 1.0, 2.0)
"""Epochs as a multiple of the graph's: the peer takes either of the first two, ours also the last
where no shorter one is enough."""
WITHIN = 0.003
TUNING_SEED = 100
JUDGED = 12
"""Points of a curve, at least."""


class Case:
    """One graph at one label rate: its records, and jobs of the sides.

    `twice`: whether records are built a first time to compile kernels.
    """

    twice = True

    def __init__(self, graph: Graph, labels: int, args: argparse.Namespace) -> None:
        self.graph, self.labels, self.args = graph, labels, args
        self.folder = args.folder
        self.name = f"{graph.name} {labels} %"
        self.epochs = args.epochs or graph.epochs[labels]
        self.records: dict[str, Built] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.goal = 0.0

    def built(self, name: str, *sets: str, tuned: bool = True) -> Built:
        """Records of one recipe; `tuned`: the model and the sizes that all sides have."""
        if name not in self.records:
            graph = self.graph
            model = (
                *graph.records, f"batches.outputs={outputs(graph, self.labels)}",
                "train.model=sage", f"train.layers={graph.layers}",
                f"train.dropout={graph.dropout}",
            )  # fmt: skip
            every = [*(model if tuned else ()), *sets]
            self.records[name] = built(
                graph, self.labels, name, every, self.folder, twice=self.twice
            )
        return self.records[name]

    def job(self, kind: str, records: Built, seed: int, **more: Any) -> dict[str, Any]:
        epochs = int(more.get("epochs", self.epochs))
        return {
            "kind": kind, "seed": seed, "config": records.config, "run": str(records.run),
            **peer_files(records.run, self.folder), "batch": records.train["batch"],
            "precision": self.args.precision, "schedule": "cosine", "lr": RATES[-1],
            "epochs": epochs, "every": max(1, epochs // JUDGED), "columns": self.graph.reduce,
            "records": records.digest, **more,
        }  # fmt: skip

    def started(self, name: str, job: dict[str, Any], module: str = TRAINING) -> Turns:
        """A side that is ready for its first turn."""
        return Process(name, job, self.folder, self.args.dgl, module)

    def trained(self, jobs: dict[str, dict[str, Any]], **more: Any) -> dict[str, dict[str, Any]]:
        return alternating(jobs, self.started, **more)

    def alone(self, job: dict[str, Any]) -> Curve:
        """The curve of one tuning run, which is kept: what ran once is not run again."""
        kept = self.folder / "tuning.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        key = json.dumps(job, sort_keys=True)
        if key not in known:
            curve = self.trained({"tuning": job})["tuning"]["curve"]
            known[key] = [asdict(point) for point in curve]
            kept.write_text(json.dumps(known))
        return [Point(**values) for values in known[key]]


def seconds_to(curve: Curve, target: float) -> float:
    point = reached(curve, target)
    return math.inf if point is None else point.seconds


def peer_setting(case: Case) -> tuple[dict[str, Any], float]:
    """(fanouts, rate and epochs of the peer, validation accuracy that its best fanout ended at)."""
    records, layers = case.built("plain"), case.graph.layers
    middle = case.graph.fanouts[len(case.graph.fanouts) // 2]

    def tried(fanout: int, rate: float, epochs: int = case.epochs) -> Curve:
        asked = {"fanouts": [fanout] * layers, "lr": rate, "epochs": epochs}
        return case.alone(case.job("dgl", records, TUNING_SEED, **asked))

    rates = {rate: tried(middle, rate)[-1].valid for rate in RATES}
    rate = max(rates, key=rates.__getitem__)
    curves = {fanout: tried(fanout, rate) for fanout in case.graph.fanouts}
    ended = max(curve[-1].valid for curve in curves.values())
    fanout = min(curves, key=lambda one: seconds_to(curves[one], ended - WITHIN))
    half = max(1, round(LENGTHS[0] * case.epochs))
    shorter = tried(fanout, rate, half)
    sooner = seconds_to(shorter, ended - WITHIN) < seconds_to(curves[fanout], ended - WITHIN)
    table = {str(one): [curve[-1].valid, curve[-1].seconds] for one, curve in curves.items()}
    print(
        f"{case.name}: peer by fanout (valid, s) {table}; by rate {rates}; "
        f"half as long {shorter[-1].valid}",
        flush=True,
    )
    return {
        "fanouts": [fanout] * layers,
        "lr": rate,
        "epochs": half if sooner else case.epochs,
    }, ended


def settings(case: Case) -> dict[str, dict[str, Any]]:
    """What the peer and both of our sides train with, chosen once a case."""
    if not case.settings:
        case.built("plain")
        case.built("propagated", "features.propagate=2", *case.graph.propagated)
        peer, ended = peer_setting(case)
        ours = {name: our_setting(case, name, ended - WITHIN) for name in ("plain", "propagated")}
        case.settings, case.goal = {"peer": peer, **ours}, ended - WITHIN
    return case.settings


def our_setting(case: Case, name: str, target: float) -> dict[str, Any]:
    """Rate and epochs that come to `target` first on validation, or else nearest to it."""
    records = case.records[name]

    def tried(rate: float, length: float) -> Curve:
        asked = {"lr": rate, "epochs": max(1, round(length * case.epochs))}
        return case.alone(case.job("stockpot", records, TUNING_SEED, **asked))

    curves = {(rate, 1.0): tried(rate, 1.0) for rate in RATES}
    rate = max(RATES, key=lambda one: curves[one, 1.0][-1].valid)
    for length in LENGTHS:
        if length < 1 or all(math.isinf(seconds_to(c, target)) for c in curves.values()):
            curves[rate, length] = tried(rate, length)
    rate, length = min(
        curves, key=lambda one: (seconds_to(curves[one], target), -curves[one][-1].valid)
    )
    table = {str(one): [curve[-1].valid, curve[-1].seconds] for one, curve in curves.items()}
    print(f"{case.name}: ours, {name}, by rate and length (valid, s) {table}", flush=True)
    return {"lr": rate, "epochs": max(1, round(length * case.epochs))}


def repeated(case: Case, jobs: Any, seeds: int, **more: Any) -> dict[str, dict[str, Any]]:
    """Mean curves over seeds of sides that take turns; the floor of the last seed."""
    every = [case.trained(jobs(seed), **more) for seed in range(seeds)]
    return {
        name: {
            "curve": mean_curve([one[name]["curve"] for one in every]),
            "floor": every[-1][name]["floor"],
            "epochs": [seconds for one in every for seconds in one[name]["epochs"]],
            "curves": [one[name]["curve"] for one in every],
        }
        for name in every[0]
    }
