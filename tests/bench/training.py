"""`make bench-train`: CPU seconds to an accuracy by our records and by sampling loaders, on graphs
in memory.

    make bench-train ARGS='--dgl DIR'         # DIR: a folder with DGL 1.1.3 (pip install --target)
    make bench-train ARGS='--dgl DIR --graphbolt DIR2/bin/python --others'
    make bench-train ARGS='--dgl DIR --full'  # all graphs, 50, 5, 1 % labels, 3 seeds, all sides

What is compared: nothing but the batches different; the same with our propagated columns handed to
the peer; each side with what it precomputes itself, ours propagation; DGL's example as its users
write it against our defaults; and with `--others` full batch, clusters, random batches, SIGN,
GraphBolt and torch_geometric's NeighborLoader. A peer that is not installed has rows that say so.

Sides have the same model, optimiser, precision and seeds a step, one thread each, a process each,
and take turns epoch by epoch. Seconds are CPU seconds of training and of a validation after every
epoch by a side's own batches; imports and compilation are not counted. Accuracy is judged by exact
inference on the whole graph, the same code for all, in nobody's seconds.

The peer's rate is chosen on validation at its middle fanout, then its fanout, the fastest to the
accuracy that the best one ends at, less 0.3 points, then whether half the epochs are enough. Ours
takes its rate and half, once or twice the epochs to the same accuracy. One training (seed 100)
chooses, others (0 to n - 1) are reported; test accuracy chooses nothing. Rows and curves go to
runs/bench/train.json, charts to `--svg DIR`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.accuracy_chart import chart
from tests.bench.dgl_script import EPOCHS as SCRIPT_EPOCHS
from tests.bench.machine import machine
from tests.bench.time_to_accuracy import breaks_even, mean_reached, ratio_row, reached
from tests.bench.training_case import (
    RATES,
    TUNING_SEED,
    WITHIN,
    Case,
    repeated,
    settings,
)
from tests.bench.training_graphs import GRAPHS
from tests.bench.training_process import not_installed

MOST = 5.0
"""CPU seconds that another side may take, as a multiple of the peer's."""
LONGER = 2.0
"""The same of our defaults, against a script: twice as long is no gain."""
TARGETS = {"batches": None, "columns": None, "own": 1.5, "own, 1 %": 3.0, "script": 8.0}
PEER = "DGL 1.1.3"


def rows_of(
    case: Case, what: str, ours: Any, peer: Any, preprocessing: float, wanted: float | None,
    goal: float, n: int, peer_name: str = PEER, **more: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of one comparison: a training alone, and the first one, preprocessing included."""
    mine, its = (
        reached(side["curve"], goal) or mean_reached(side["curves"], goal) for side in (ours, peer)
    )
    seconds, other = (None if one is None else one.seconds for one in (mine, its))
    about = {
        "accuracy": goal,
        "test": [None if one is None else one.test for one in (mine, its)],
        "without_validation": [None if one is None else one.train_seconds for one in (mine, its)],
        "floor_an_epoch": [side["floor"] and side["floor"]["seconds"] for side in (ours, peer)],
        "ends_at": [side["curve"][-1].valid for side in (ours, peer)],
        "ends_after": [side["curve"][-1].seconds for side in (ours, peer)],  # without it: at least
        **more,
    }
    first = None if seconds is None else seconds + preprocessing
    return [
        ratio_row(f"{what}: seconds to accuracy", case.name, seconds, peer_name, other, n, wanted,
                  breaks_even=breaks_even(preprocessing, seconds, other), **about),
        ratio_row(f"{what}: the first training, preprocessing included", case.name, first,
                  peer_name, other, n, None, preprocessing=preprocessing),
    ]  # fmt: skip


def absent(case: Case, what: str, peer: str, why: str, wanted: float | None) -> dict[str, Any]:
    """The row of a peer that is not installed."""
    return ratio_row(what, case.name, None, peer, None, 0, wanted, missing=why)


def own_target(case: Case) -> float | None:
    return TARGETS["own, 1 %"] if case.labels == 1 else TARGETS["own"]


def against_sampling(case: Case, n: int) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """Rows and curves of the three comparisons with the peer's sampler, and the accuracy."""
    chosen = settings(case)
    plain, propagated = case.built("plain"), case.built("propagated")
    setting = chosen["peer"]
    columns = {**setting, "fanouts": setting["fanouts"][1:]}  # its first layer reads no edge

    def jobs(seed: int) -> dict[str, dict[str, Any]]:
        return {
            "ours, x": case.job("stockpot", plain, seed, **chosen["plain"]),
            "ours, propagated": case.job("stockpot", propagated, seed, **chosen["propagated"]),
            "DGL": case.job("dgl", plain, seed, **setting),
            "DGL, our columns": case.job("dgl", propagated, seed, **columns),
        }

    sides = repeated(case, jobs, n, floors=True)
    # The tuning run's accuracy, or a little less where the reported ones of the peer end below it.
    goal = min(case.goal, sides["DGL"]["curve"][-1].valid)
    rows = [
        *rows_of(case, "batches alone", sides["ours, x"], sides["DGL"], plain.seconds,
                 TARGETS["batches"], goal, n, settings=chosen),
        *rows_of(case, "our columns for both", sides["ours, propagated"],
                 sides["DGL, our columns"], propagated.seconds, TARGETS["columns"],
                 sides["DGL, our columns"]["curve"][-1].valid - WITHIN, n),
        *rows_of(case, "each with what it precomputes", sides["ours, propagated"], sides["DGL"],
                 propagated.seconds, own_target(case), goal, n),
    ]  # fmt: skip
    return rows, sides, goal


def against_script(case: Case, n: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The peer's example as it is, against a recipe that names only data, and the tuned model."""
    untouched = case.built("defaults", "hag.enabled=never", tuned=False)
    setting, propagated = settings(case)["propagated"], case.built("propagated")

    def script(seed: int) -> dict[str, Any]:
        return case.job("script", case.built("plain"), seed, epochs=SCRIPT_EPOCHS, every=1)

    most = LONGER * case.alone(script(TUNING_SEED))[-1].seconds
    each = {"schedule": untouched.train["schedule"], "lr": untouched.train["lr"]}

    def jobs(seed: int) -> dict[str, dict[str, Any]]:
        epochs = int(untouched.train["epochs"])
        return {
            "DGL's script": script(seed),
            "our defaults": case.job(
                "stockpot", untouched, seed, epochs=epochs, every=4, **each
            ),
            "our recipe": case.job("stockpot", propagated, seed, **setting),
        }  # fmt: skip

    sides = repeated(case, jobs, n, most=most)
    goal = sides["DGL's script"]["curve"][-1].valid - WITHIN
    rows: list[dict[str, Any]] = []
    for name, records in (("our defaults", untouched), ("our recipe", propagated)):
        rows += rows_of(case, f"a script as written against {name}", sides[name],
                        sides["DGL's script"], records.seconds, TARGETS["script"], goal, n,
                        "DGL's example")  # fmt: skip
    return rows, sides


def against_others(
    case: Case, goal: float, peer_seconds: float, n: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Other ways to make batches, each until it comes to the accuracy or has had its time."""
    chosen = settings(case)
    propagated, plain = case.built("propagated"), case.built("plain")
    long = {"epochs": 50 * case.epochs, "schedule": "constant", "every": 5}
    jobs: dict[str, Any] = {
        "ours, propagated": lambda seed: case.job(
            "stockpot", propagated, seed, **chosen["propagated"]
        ),
        "full batch": lambda seed: case.job("full", plain, seed, **long, lr=5e-3),
        "SIGN": lambda seed: case.job(
            "sign", propagated, seed, **{**long, "every": 2, "lr": RATES[0]}
        ),
    }
    for method in ("cluster", "random"):
        records = case.built(method, f"batches.method={method}")
        jobs[method] = lambda seed, records=records: case.job(
            "stockpot", records, seed, epochs=2 * case.epochs
        )
    rows = []
    for name, kind in (("GraphBolt 2.1.0", "graphbolt"), ("NeighborLoader", "neighbor-loader")):
        if why := not_installed(kind, case.args.dgl, case.args.graphbolt):
            rows.append(absent(case, "other batches: seconds to accuracy", name, why, None))
            continue
        jobs[name] = lambda seed, kind=kind: case.job(
            kind, plain, seed, **chosen["peer"], python=case.args.graphbolt
        )
    sides = repeated(
        case, lambda seed: {name: job(seed) for name, job in jobs.items()}, n, enough=goal,
        most=MOST * peer_seconds,
    )  # fmt: skip
    for name, side in sides.items():
        if name != "ours, propagated":
            row, _ = rows_of(case, "other batches", sides["ours, propagated"], side,
                             propagated.seconds, None, goal, n, name)  # fmt: skip
            rows.append(row)
    return rows, sides


def measured(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is asked of one graph at one label rate."""
    rows: list[dict[str, Any]] = []
    sides: dict[str, Any] = {}
    why = not_installed("dgl", args.dgl, args.graphbolt)
    if why:
        rows = [
            absent(case, f"{what}: seconds to accuracy", PEER, why, wanted)
            for what, wanted in (
                ("batches alone", TARGETS["batches"]),
                ("our columns for both", TARGETS["columns"]),
                ("each with what it precomputes", own_target(case)),
                ("a script as written against our defaults", TARGETS["script"]),
            )
        ]
        return {"rows": rows, "sides": sides}
    if "sampling" in args.only:
        rows, sides, goal = against_sampling(case, args.seeds)
    if "script" in args.only:
        more, found = against_script(case, args.seeds)
        rows, sides = rows + more, sides | found
    if args.others and "sampling" in args.only:
        more, found = against_others(case, goal, sides["DGL"]["curve"][-1].seconds, args.seeds)
        rows, sides = rows + more, {**found, **sides}
    return {"rows": rows, "sides": sides}


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows as Markdown."""

    def number(value: Any, text: str = ".1f") -> str:
        return "" if value is None else format(value, text)

    def seconds(row: dict[str, Any], name: str, side: int) -> str:
        if row[name] is None and "ends_after" in row:
            return f"not in {row['ends_after'][side]:.1f}"
        return number(row[name])

    print("| graph, labels | what | ours, s | peer | its s | ratio | target | pays after |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        peer = row["peer"] + (f" ({row['missing']})" if "missing" in row else "")
        print(
            f"| {row['dataset']} | {row['what']} | {seconds(row, 'ours', 0)} | {peer} "
            f"| {seconds(row, 'peer_value', 1)} | {number(row['ratio'], '.2f')} "
            f"| {number(row['target'], 'g')} | {number(row.get('breaks_even'), 'd')} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=list(GRAPHS), default=["wordnet"])
    parser.add_argument("--labels", nargs="+", type=int, default=[50, 1], help="percent")
    parser.add_argument("--seeds", type=int, default=1, help="trainings that are reported")
    parser.add_argument("--epochs", type=int, default=0, help="of the peer; 0: by graph")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", nargs="+", choices=["sampling", "script"],
                        default=["sampling", "script"])  # fmt: skip
    parser.add_argument("--others", action="store_true", help="other batches too")
    parser.add_argument("--full", action="store_true", help="all graphs, rates, sides; 3 seeds")
    parser.add_argument("--dgl", type=Path, default=None, help="folder that DGL is installed in")
    parser.add_argument("--graphbolt", default=None, help="python of GraphBolt's environment")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/train"))
    parser.add_argument("--svg", type=Path, default=None, help="folder that charts are written to")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/train.json"))
    args = parser.parse_args()
    if args.full:
        args.data, args.labels, args.others = list(GRAPHS), [50, 5, 1], True
        args.seeds = max(3, args.seeds)
    args.folder.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {**machine(), "rows": [], "curves": {}}
    for name in args.data:
        if not GRAPHS[name].path.exists():
            print(f"{name}: {GRAPHS[name].path} is not there, left out", flush=True)
            continue
        for labels in args.labels:
            case = Case(GRAPHS[name], labels, args)
            result = measured(case, args)
            found["rows"] += result["rows"]
            found["curves"][case.name] = {
                side: [[asdict(point) for point in curve] for curve in values["curves"]]
                for side, values in result["sides"].items()
            }
            args.out.write_text(json.dumps(found, indent=1))
            table(result["rows"])
            if args.svg is not None and result["sides"]:
                args.svg.mkdir(parents=True, exist_ok=True)
                starts = {side: _preprocessing(case, side) for side in result["sides"]}
                curves = {side: values["curve"] for side, values in result["sides"].items()}
                path = args.svg / f"training-{name}-{labels}.svg"
                path.write_text(chart(curves, starts, case.name))


def _preprocessing(case: Case, side: str) -> float:
    """CPU seconds before the first step of a side."""
    owner = {
        "ours, x": "plain", "our defaults": "defaults", "cluster": "cluster", "random": "random",
        "ours, propagated": "propagated", "our recipe": "propagated",
    }  # fmt: skip
    return case.records[owner[side]].seconds if side in owner else 0.0


if __name__ == "__main__":
    main()
