"""`make bench-cuda`: training and inference on one GPU from packed records that stay there, against
a CPU sampler that feeds it, within a budget of time.

    make bench-cuda ARGS='--dgl DIR'          # DIR: a folder with DGL 1.1.3 (pip install --target)
    make bench-cuda ARGS='--dgl DIR --graphbolt DIR2/bin/python --budget 480'
    make bench-cuda ARGS=--prepare            # builds the records and stops
    make bench-cuda ARGS='--device cpu --small --epochs 1'    # what a machine without GPU can do

All sides train the same GraphSAGE (3 x 256) with the same optimiser, kernels, schedule and seeds a
step, in fp32, then in bf16. Features are resident on the GPU for all. Ours: records are brought to
the GPU once and stay there where they fit in half of its free memory; else, and in the rows "by the
loader", each step is copied while the one before is computed on. The peers: DGL's CPU sampler, and
GraphBolt's where its environment is named, by as many processes as are fastest, copies hidden too;
full batch, the graph resident.

Sides take turns epoch by epoch in one process. Seconds are wall seconds between synchronisations of
the device (on a CPU: of the clock). An epoch is that of training alone, the median; seconds to
accuracy include a side's own validation after every epoch and the bringing of its records. Accuracy
is judged by exact inference, in nobody's seconds, and settings are chosen on validation as in
`make bench-train` where there is time, else taken by hand, which the rows say. Inference: 1 % of
the nodes and all test nodes, sizes chosen as in `make bench-inference`.

The most important comparison comes first, runs/bench/cuda.json is written after every row, and what
the budget left out is said in words and in `left_out`. Preprocessing is what one thread took, in
CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.bench.cuda_side import Here
from tests.bench.inference import Weights, middle_fanouts, node_lists, predicted
from tests.bench.machine import machine
from tests.bench.time_to_accuracy import ratio_row
from tests.bench.training import rows_of
from tests.bench.training_case import RATES, WITHIN, Case, repeated, settings
from tests.bench.training_graphs import GRAPHS, Graph, peer_files
from tests.bench.training_process import TRAINING, alternating, not_installed
from tests.graphs import write_npz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.training_graphs import Built

TARGETS = {"epoch": 18.0, "accuracy": 17.0, "inference": 130.0}
"""Of the comparison in which each side has what it precomputes."""
DGL, BOLT, FULL, LOADER = "DGL 1.1.3", "GraphBolt 2.1.0", "full batch", "ours, by the loader"
OWN, SAME = "each with what it precomputes", "batches alone"
LAYERS = 3
FULL_TIMES = 20
"""Epochs of full batch, whose epoch is one step, as a multiple of the graph's."""
TUNING_SHARE = 0.45
"""Of the budget, that preprocessing and tuning may take; then settings are by hand."""
WORKERS = (0, 4, 8, 12)
TURNS = 5
EARLY_S = 10.0
"""Seconds before the end of the budget in which no epoch begins."""


class OutOfTimeError(Exception):
    """A tuning run would take what the comparisons need."""


class Budget:
    """Wall seconds, and what they were too few for.

    Parameters
    ----------
    clock : in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock, self.began = seconds, clock, clock()
        self.left_out: list[str] = []

    @property
    def left(self) -> float:
        return self.seconds - (self.clock() - self.began)

    def over(self) -> bool:
        return self.left < EARLY_S

    def leave_out(self, words: str) -> None:
        self.left_out.append(words)
        print(f"left out: {words}", flush=True)

    def enough(self, what: str, seconds: float) -> bool:
        """Whether so many seconds are left; else `what` is left out."""
        if self.left >= seconds:
            return True
        self.leave_out(
            f"{what}: {max(0.0, self.left):.0f} s of the budget of {self.seconds:.0f} s were left, "
            f"about {seconds:.0f} s are needed"
        )
        return False


class DeviceCase(Case):
    """A graph whose sides run in this process, on one device."""

    twice = False

    def __init__(self, graph: Graph, args: argparse.Namespace, budget: Budget) -> None:
        super().__init__(replace(graph, layers=LAYERS), args.labels, args)
        self.budget = budget
        self.workers: dict[str, int] = {}
        self.by_hand = ""

    def job(self, kind: str, records: Built, seed: int, **more: Any) -> dict[str, Any]:
        return super().job(
            kind, records, seed, **{"python": self.args.graphbolt} | self.place(kind) | more
        )

    def place(self, kind: str) -> dict[str, Any]:
        """What a side is told of its device."""
        return {
            "device": self.args.device, "resident": self.args.resident,
            "workers": self.workers.get(kind, 0),
        }  # fmt: skip

    def started(self, name: str, job: dict[str, Any], module: str = TRAINING) -> Here:
        return Here(name, self.place(job["kind"]) | job, module)

    def trained(self, jobs: dict[str, dict[str, Any]], **more: Any) -> dict[str, dict[str, Any]]:
        return alternating(jobs, self.started, over=self.budget.over, **more)

    def alone(self, job: dict[str, Any]) -> Any:
        if self.budget.left < (1 - TUNING_SHARE) * self.budget.seconds:
            raise OutOfTimeError
        return super().alone(job)

    def chosen(self, *, peer: bool) -> dict[str, dict[str, Any]]:
        """Settings by validation, or by hand where there is no time or no peer for that."""
        try:
            if peer and not self.args.by_hand:
                return settings(self)
            self.by_hand = "asked for" if peer else "no peer to choose them against"
        except OutOfTimeError:
            self.by_hand = "no time to choose them"
        ours = {"lr": RATES[-1], "epochs": self.epochs}
        self.goal = 1.0
        self.settings = {
            "peer": {"fanouts": middle_fanouts(self), **ours}, "plain": ours, "propagated": ours
        }  # fmt: skip
        return self.settings

    def choose_workers(self, kind: str, records: Built) -> None:
        """The number of processes with which an epoch of a peer's batches is fastest."""
        if self.args.workers is not None or self.args.device == "cpu":
            self.workers[kind] = self.args.workers or 0
            return
        seconds: dict[int, float] = {}
        for workers in (count for count in WORKERS if count < (os.cpu_count() or 1)):
            job = self.job(kind, records, 0, fanouts=middle_fanouts(self), every=10**6)
            side = self.started(f"{workers} workers", job | {"workers": workers})
            seconds[workers] = min(side.ask()["train_seconds"] for _ in range(2))
            side.close()
        self.workers[kind] = min(seconds, key=seconds.__getitem__)
        print(f"{self.name}: {kind}, s an epoch by processes: {seconds}", flush=True)


def epoch_row(
    case: DeviceCase, what: str, sides: dict[str, Any], mine: str, peer: str, its: str,
    target: float | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Median seconds of the training of an epoch, without validation."""
    ours, other = (statistics.median(sides[name]["epochs"]) for name in (mine, its))
    count = min(len(sides[name]["epochs"]) for name in (mine, its))
    return ratio_row(f"an epoch, {what}", case.name, ours, peer, other, count, target, **more)


def training_rows(
    case: DeviceCase, precision: str, peers: dict[str, str], about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows of epochs, then of seconds to an accuracy; curves are left in `about["curves"]`.

    Parameters
    ----------
    peers : kinds of batches by the peers' names, those that are installed.
    """
    plain, propagated = case.records["plain"], case.records["propagated"]
    chosen = case.settings
    full = {"epochs": FULL_TIMES * case.epochs, "schedule": "constant", "lr": 5e-3, "every": 5}

    def jobs(seed: int) -> dict[str, dict[str, Any]]:
        sides = {
            "ours": case.job("stockpot", propagated, seed, **chosen["propagated"]),
            "ours, x": case.job("stockpot", plain, seed, **chosen["plain"]),
            **{name: case.job(kind, plain, seed, **chosen["peer"])
               for name, kind in peers.items()},
            LOADER: case.job("stockpot", propagated, seed, **chosen["propagated"], resident=0),
            FULL: case.job("full", plain, seed, **full),
        }  # fmt: skip
        return {name: job | {"precision": precision} for name, job in sides.items()}

    sides = repeated(case, jobs, 1)
    about["curves"] = {name: [asdict(point) for point in side["curve"]]
                       for name, side in sides.items()}  # fmt: skip
    more = {
        "unit": "wall s", "threads": None, "device": case.args.device, "precision": precision,
        "settings": chosen, "by_hand": case.by_hand,
    }  # fmt: skip
    # What is compared: (name, ours, peer, preprocessing of ours, (targets)).
    pairs = []
    if DGL in peers:
        goals = TARGETS["epoch"], TARGETS["accuracy"]
        pairs += [(OWN, "ours", DGL, propagated.seconds, goals),
                  (SAME, "ours, x", DGL, plain.seconds, (None, None))]  # fmt: skip
    pairs += [(f"against {name}", "ours", name, propagated.seconds, (None, None))
              for name in (*(one for one in peers if one != DGL), FULL, LOADER)]  # fmt: skip
    for what, mine, its, _, (target, _) in pairs:
        yield epoch_row(case, f"{what}, {precision}", sides, mine, its, its, target, **more)
    planned = jobs(0)
    short = [name for name, side in sides.items() if len(side["epochs"]) < planned[name]["epochs"]]
    if short:
        case.budget.leave_out(f"{precision}: epochs of {', '.join(short)}, ended by the budget")
    reference = DGL if DGL in peers else "ours"
    unjudged = [name for name, side in sides.items() if not side["curve"]]
    if unjudged:
        words = f"no epoch of {', '.join(unjudged)} was judged in time"
        case.budget.leave_out(f"{precision}: seconds to accuracy, {words}")
    if reference in unjudged:
        return
    goal = min(case.goal, sides[reference]["curve"][-1].valid)
    goal = goal if case.goal < 1 else goal - WITHIN
    for what, mine, its, preprocessing, (_, target) in pairs:
        if its == LOADER or {mine, its} & set(unjudged):  # LOADER is the same training
            continue
        yield from rows_of(case, f"{what}, {precision}", sides[mine], sides[its], preprocessing,
                           target, goal, 1, its, **more)  # fmt: skip


def inference_rows(case: DeviceCase, what: str) -> Iterator[dict[str, Any]]:
    """Rows of predicting 1 % of the nodes and all test nodes."""
    plain, propagated = case.records["plain"], case.records["propagated"]
    with np.load(peer_files(plain.run, case.folder)["graph"]) as graph:
        nodes, checked = node_lists(case, graph)
    if what == OWN:
        mine = Weights(case, "propagated", "stockpot", propagated)
        its = Weights(case, "dgl", "dgl", plain, fanouts=middle_fanouts(case))
    else:
        mine = its = Weights(case, "plain", "stockpot", plain)
    target = TARGETS["inference"] if what == OWN else None
    yield from predicted(
        case, what, mine, its, nodes, checked, TURNS, target, ("streamed",), unit="wall s",
        threads=None, device=case.args.device, precision="fp32",
    )  # fmt: skip


def missing_rows(case: DeviceCase, peer: str, why: str) -> list[dict[str, Any]]:
    """Rows of a peer that is not installed."""
    whats = [f"an epoch, {OWN}", f"{OWN}: seconds to accuracy"]
    wanted = [TARGETS["epoch"], TARGETS["accuracy"]]
    if peer == DGL:
        whats += [
            f"inference of {nodes}, {OWN}" for nodes in ("1 % of the nodes", "all test nodes")
        ]
        wanted += [TARGETS["inference"]] * 2
    else:
        wanted = [None, None]
    return [
        ratio_row(what, case.name, None, peer, None, 0, target, missing=why, unit="wall s",
                  threads=None, device=case.args.device)
        for what, target in zip(whats, wanted, strict=True)
    ]  # fmt: skip


def prepared(case: DeviceCase) -> Built:
    """Build the records of both of our sides, or find them built; those of x alone."""
    case.built("propagated", "features.propagate=2", *case.graph.propagated)
    return case.built("plain")


def measured(
    case: DeviceCase, args: argparse.Namespace, curves: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows of one graph, the most important first."""
    budget = case.budget
    peers: dict[str, str] = {}
    for name, kind in ((DGL, "dgl"), (BOLT, "graphbolt")):
        if why := not_installed(kind, args.dgl, args.graphbolt):
            yield from missing_rows(case, name, why)
        else:
            peers[name] = kind
    plain = prepared(case)
    for kind in peers.values():
        case.choose_workers(kind, plain)
    case.chosen(peer=DGL in peers)

    def trained(precision: str, some: dict[str, str]) -> Iterator[dict[str, Any]]:
        about: dict[str, Any] = {}
        yield from training_rows(case, precision, some, about)
        curves[f"{case.name}, {precision}"] = about.get("curves")

    started = budget.left
    yield from trained("fp32", peers)
    took = started - budget.left
    # The records of inference are built in several sizes.
    building = 10.0 + 4 * max(one.seconds for one in case.records.values())
    if DGL in peers and budget.enough(f"{case.name}: inference, {OWN}", building):
        started = budget.left
        yield from inference_rows(case, OWN)
        building = started - budget.left
    if budget.enough(f"{case.name}: epochs and accuracy in bf16", took + EARLY_S):
        first = {name: kind for name, kind in peers.items() if name == DGL}
        yield from trained("bf16", first)
    if DGL in peers and budget.enough(f"{case.name}: inference, the same weights", building):
        yield from inference_rows(case, "the same weights")


def line(row: dict[str, Any]) -> str:
    """A row of the printed table."""

    def number(value: Any, side: int = 0) -> str:
        if value is None and "ends_after" in row:
            return f"not in {row['ends_after'][side]:.3g}"
        return "" if value is None else f"{value:.4g}"

    peer = row["peer"] + (f" ({row['missing']})" if "missing" in row else "")
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    target = "" if row["target"] is None else f"{row['target']:g}"
    verdict = {True: ", met", False: ", missed", None: ""}[row["met"]]
    return (
        f"| {row['dataset']} | {row['what']} | {number(row['ours'])} | {peer} "
        f"| {number(row['peer_value'], 1)} | {ratio} | {target}{verdict} |"
    )


def graphs(args: argparse.Namespace) -> list[Graph]:
    """Those that are asked for and there."""
    if args.small:
        path = args.folder / "small.npz"
        write_npz(path, nodes=1500, classes=4, degree=8, features=20, seed=1)
        sets = ("batches.top_k=4", "train.hidden=32")
        return [Graph("small", path, LAYERS, 0.2, sets, (2, 3, 4), dict.fromkeys((50, 5, 1), 4),
                      reduce=16)]  # fmt: skip
    found = []
    for name in args.data:
        if GRAPHS[name].path.exists():
            found.append(GRAPHS[name])
        else:
            print(f"{name}: {GRAPHS[name].path} is not there, left out", flush=True)
    return found


def described(device: torch.device) -> dict[str, Any]:
    """The device, for the head of the results."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__}


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try it out")
    parser.add_argument("--budget", type=float, default=480.0, help="wall seconds")
    parser.add_argument("--data", nargs="+", choices=list(GRAPHS), default=["wordnet"])
    parser.add_argument("--small", action="store_true", help="a synthetic graph of 1,500 nodes")
    parser.add_argument("--labels", type=int, choices=[50, 5, 1], default=50, help="percent")
    parser.add_argument("--epochs", type=int, default=0, help="of the peer; 0: by graph")
    parser.add_argument(
        "--prepare", action="store_true",
        help="build the records alone: a later call has all of its budget for comparisons",
    )  # fmt: skip
    parser.add_argument("--by-hand", action="store_true", help="settings are not chosen")
    parser.add_argument(
        "--resident", type=int, default=None,
        help="most bytes of records on the device; default: half of what is free",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=None,
        help="processes of a peer's sampler; default: the fastest number",
    )  # fmt: skip
    parser.add_argument("--dgl", type=Path, default=None, help="folder that DGL is installed in")
    parser.add_argument("--graphbolt", default=None, help="python of GraphBolt's environment")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/cuda"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/cuda.json"))
    args = parser.parse_args(words)
    args.precision = "fp32"  # of the jobs that name none
    return args


def main(words: list[str] | None = None) -> int:
    args = parsed(words)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "bench-cuda: this machine or its torch has no CUDA device; ARGS='--device cpu --small "
            "--epochs 1' runs the same comparisons on the CPU, to try them out",
            file=sys.stderr,
        )
        return 2
    budget = Budget(args.budget)
    if device.type == "cpu":
        torch.set_num_threads(1)
    if args.resident is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 << 30
        args.resident = free // 2
    if args.dgl is not None:
        sys.path.append(str(args.dgl))
        os.environ.setdefault("DGLBACKEND", "pytorch")
    torch.set_flush_denormal(True)
    args.folder.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        **machine(), **described(device), "budget": args.budget, "rows": [], "curves": {}
    }  # fmt: skip

    def write() -> None:
        results.update(spent=args.budget - budget.left, left_out=budget.left_out)
        args.out.write_text(json.dumps(results, indent=1))

    print(f"{results['device']}, budget {args.budget:.0f} s")
    print("| graph, labels | what | ours, s | peer | its s | ratio | target |")
    print("|---|---|---|---|---|---|---|")
    for i, graph in enumerate(graphs(args)):
        if i and not budget.enough(graph.name, budget.seconds / 2):
            continue
        case = DeviceCase(graph, args, budget)
        if args.prepare:
            prepared(case)
            budget.leave_out(f"{graph.name}: all comparisons, the records alone were asked for")
            continue
        for row in measured(case, args, results["curves"]):
            if device.type == "cpu":
                row["met"] = None  # targets are those of a GPU
            results["rows"].append(row)
            print(line(row), flush=True)
            write()
    write()
    print(f"{budget.seconds - budget.left:.0f} s of {budget.seconds:.0f} s; left out: "
          f"{'; '.join(budget.left_out) or 'nothing'}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
