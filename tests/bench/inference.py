"""`make bench-inference`: CPU seconds of predicting 1 % of the nodes, and all test nodes, from
packed records and by a sampling loader.

    make bench-inference ARGS='--dgl DIR'    # DIR: a folder with DGL 1.1.3 (pip install --target)
    make bench-inference ARGS='--dgl DIR --data physics --turns 7'

Two comparisons: the same weights, of a GraphSAGE trained on our records; and each side with its own
model and what it precomputes, ours propagated columns. Records and fanouts are the smallest whose
validation accuracy is within 0.3 points of exact inference with the same weights; exact inference
on the whole graph stands beside. Sides take turns in processes of one thread, graph, features and
weights in memory; figures are medians of CPU seconds. What building the records took is in a
column of its own of the rows, which go to runs/bench/inference.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.inline import run
from tests.bench.machine import machine
from tests.bench.time_to_accuracy import ratio_row
from tests.bench.training_case import RATES, WITHIN, Case
from tests.bench.training_graphs import GRAPHS, Built, peer_files
from tests.bench.training_process import not_installed

SIZES = (8, 16, 32, 64)
FANOUTS = (3, 5, 10, 20, -1)
"""`infer.top_k`, and neighbours of a node that the peer draws: -1 is all."""
TARGET = 3.0
BATCH = 1024
PEER = "DGL 1.1.3"
MODULE = "tests.bench.inference_child"


class Weights:
    """One model, and the ways to predict with it.

    Parameters
    ----------
    kind : batches it is trained on, of `training_batches.BATCHES`.
    """

    def __init__(self, case: Case, name: str, kind: str, records: Built, **more: Any) -> None:
        self.case, self.name, self.records = case, name, records
        self.files = peer_files(records.run, case.folder)
        made = records.digest[:12], case.epochs, case.args.precision
        stem = "-".join(map(str, (case.graph.name, case.labels, name, *made)))
        self.path = case.folder / f"{stem}.safetensors"
        self.built: dict[str, float] = {}
        if not self.path.exists():
            job = case.job(kind, records, 0, lr=RATES[-1], every=10**6, **more)
            training = case.started(f"train {name}", job)
            for _ in range(job["epochs"]):
                training.ask()
            training.ask(f"save {self.path}")
            training.close()

    def job(self, kind: str, ids: Path, size: int = 0) -> dict[str, Any]:
        """What `inference_child` predicts; `size`: nodes of a set, or neighbours of a node."""
        job = {"kind": kind, "weights": str(self.path), "ids": str(ids), "seed": 0,
               "batch": BATCH, **self.files}  # fmt: skip
        if kind == "dgl":
            job["fanouts"] = [size] * self.records.config["layers"]
        if kind in ("records", "streamed"):
            job["run"] = str(self._packed(ids, size))
        return job

    def _packed(self, ids: Path, size: int) -> Path:
        """Run whose inference records hold these nodes, the top `size` of each."""
        stem = f"{self.records.run.name}-{ids.stem.split('-')[-1]}-{size}"
        recipe = self.case.folder / f"{stem}.toml"
        recipe.write_text((self.case.folder / f"{self.records.run.name}.toml").read_text())
        sets = [*self.records.sets, f"infer.split={ids.resolve()}", f"infer.top_k={size}"]
        store = self.case.folder / "stores" / self.records.run.name
        started = time.process_time()
        run(recipe, sets, store, self.case.folder, ["pack:infer"])
        self.built[stem] = time.process_time() - started
        return self.case.folder / stem


def turns(case: Case, jobs: dict[str, dict[str, Any]], count: int) -> dict[str, dict[str, Any]]:
    """Median CPU seconds and the mean accuracy of each side, which take turns."""
    sides = {name: case.started(f"infer {name}", job, MODULE) for name, job in jobs.items()}
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    try:
        for _ in range(count):
            for name, side in sides.items():
                lines[name].append(side.ask())
    finally:
        for side in sides.values():
            side.close()
    return {
        name: {
            "seconds": statistics.median(one["seconds"] for one in found),
            "accuracy": statistics.fmean(one["accuracy"] for one in found),
        }
        for name, found in lines.items()
    }


def smallest(case: Case, weights: Weights, kind: str, ids: Path) -> tuple[int, dict[int, float]]:
    """(the smallest size within 0.3 points of exact inference on validation, accuracies seen); the
    largest where none is."""
    exact = turns(case, {"full": weights.job("full", ids)}, 1)["full"]["accuracy"]
    seen: dict[int, float] = {}
    sizes = SIZES if kind == "records" else FANOUTS
    for size in sizes:
        seen[size] = turns(case, {kind: weights.job(kind, ids, size)}, 1)[kind]["accuracy"]
        if seen[size] >= exact - WITHIN:
            break
    print(f"{case.name}, {weights.name}, {kind}: exact {exact:.4f}, {seen}", flush=True)
    return size, seen


def node_lists(case: Case, graph: Any) -> tuple[dict[str, Path], Path]:
    """Files of the nodes that are predicted, by name, and of those that sizes are chosen on."""
    stem = f"{case.graph.name}-{case.labels}"
    nodes = {"1 %": case.folder / f"{stem}-one.npy", "test": case.folder / f"{stem}-test.npy"}
    checked = case.folder / f"{stem}-valid.npy"
    test = graph["test"]
    count = max(1, len(graph["y"]) // 100)
    some = np.random.default_rng(0).choice(test, min(len(test), count), replace=False)
    np.save(nodes["1 %"], np.sort(some))
    np.save(nodes["test"], test)
    np.save(checked, graph["valid"])
    return nodes, checked


def middle_fanouts(case: Case) -> list[int]:
    """What the peer trains with: the middle of its fanouts in every layer."""
    return [case.graph.fanouts[len(case.graph.fanouts) // 2]] * case.graph.layers


def predicted(
    case: Case, what: str, mine: Weights, its: Weights, nodes: dict[str, Path], checked: Path,
    turn_count: int, target: float | None = TARGET, further: tuple[str, ...] = (), **more: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of one comparison: `mine` from records against `its` by the peer's batches.

    Parameters
    ----------
    further : other kinds of predicting with `mine` from the same records, whose seconds stand in
        `others` of a row.
    """
    rows = []
    size, _ = smallest(case, mine, "records", checked)
    fanout, _ = smallest(case, its, "dgl", checked)
    for name, ids in nodes.items():
        jobs = {
            "ours": mine.job("records", ids, size), "peer": its.job("dgl", ids, fanout),
            "full graph": mine.job("full", ids),
            **{kind: mine.job(kind, ids, size) for kind in further},
        }  # fmt: skip
        found = turns(case, jobs, turn_count)
        built = mine.built[Path(jobs["ours"]["run"]).name]
        row = ratio_row(
            f"inference of {'1 % of the nodes' if name == '1 %' else 'all test nodes'}, {what}",
            case.name, found["ours"]["seconds"], PEER, found["peer"]["seconds"], turn_count,
            target, top_k=size, fanout=fanout, preprocessing=built,
            full_graph=found["full graph"]["seconds"],
            others={kind: found[kind]["seconds"] for kind in further},
            accuracy={side: values["accuracy"] for side, values in found.items()}, **more,
        )  # fmt: skip
        rows.append(row)
    return rows


def compared(case: Case, turn_count: int) -> list[dict[str, Any]]:
    """Rows of one graph."""
    plain = case.built("plain")
    propagated = case.built("propagated", "features.propagate=2", *case.graph.propagated)
    with np.load(peer_files(plain.run, case.folder)["graph"]) as graph:
        nodes, checked = node_lists(case, graph)
    same = Weights(case, "plain", "stockpot", plain)
    ours = Weights(case, "propagated", "stockpot", propagated)
    peer = Weights(case, "dgl", "dgl", plain, fanouts=middle_fanouts(case))
    return [
        row
        for what, mine, its in (("the same weights", same, same), ("each with its own", ours, peer))
        for row in predicted(case, what, mine, its, nodes, checked, turn_count)
    ]


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows as Markdown."""
    print("| graph | what | ours, s, % | peer, s, % | full graph, s, % | ratio | target |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        if "missing" in row:
            print(f"| {row['dataset']} | {row['what']} | | {row['missing']} | | | {TARGET:g} |")
            continue
        cells = [
            f"{seconds:.3f}, {100 * row['accuracy'][side]:.2f}{size}"
            for side, seconds, size in (
                ("ours", row["ours"], f" (top {row['top_k']})"),
                ("peer", row["peer_value"], f" (fanout {row['fanout']})"),
                ("full graph", row["full_graph"], ""),
            )
        ]
        print(f"| {row['dataset']} | {row['what']} | {' | '.join(cells)} | {row['ratio']:.2f} "
              f"| {row['target']:g} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=list(GRAPHS), default=["wordnet"])
    parser.add_argument("--labels", type=int, default=50, help="percent, of the trained models")
    parser.add_argument("--epochs", type=int, default=0, help="of training; 0: by graph")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of training")
    parser.add_argument("--full", action="store_true", help="all graphs")
    parser.add_argument("--dgl", type=Path, default=None, help="folder that DGL is installed in")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/train"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/inference.json"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in GRAPHS if args.full else args.data:
        if not GRAPHS[name].path.exists():
            print(f"{name}: {GRAPHS[name].path} is not there, left out", flush=True)
            continue
        case = Case(GRAPHS[name], args.labels, args)
        if why := not_installed("dgl", args.dgl, None):
            some = [
                ratio_row(f"inference of {nodes}", case.name, None, PEER, None, 0, TARGET,
                          missing=why)
                for nodes in ("1 % of the nodes", "all test nodes")
            ]  # fmt: skip
        else:
            some = compared(case, args.turns)
        table(some)
        rows += some
        args.out.write_text(json.dumps({**machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
