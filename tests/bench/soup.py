"""Souping: our methods on validation records against GIS (grid 20) by full-graph passes, seconds,
memory, accuracy.

    python -m tests.bench.soup  # 50 ingredients with 2 % validation, 10 with 25 %, 30
    python -m tests.bench.soup --cases sparse              # one of sparse, dense, thirty
    python -m tests.bench.soup --cases --accuracy  # 5 repeats: gain on test records
    python -m tests.bench.soup --cases --grid  # 10 to 50 ingredients, three models, three data sets
    python -m tests.bench.soup --full  # all of it, LS and PLS as published to their last epoch

Ingredients: `tests.bench.soup_ingredients`. Both sides have the same files, threads and machine, in
alternating runs. A GIS run is 1 + (N - 1) 20 full-graph passes and the N that order the
ingredients; passes, with the mixing before each, are timed beside every run of ours and multiplied:
all are the same work. CPU seconds of one thread. Memory is the growth of anonymous memory of one
child process for each, from before it opens the data, libraries loaded and used once, nothing freed
kept. The selection accuracy of both sides is cross-fitted; that of LS and PLS as published is on
the validation outputs they were fitted to. LS and PLS as published: settings of SAGE on
ogbn-products (25 epochs, lr 10; 4 of 32 parts, 50 epochs, lr 1), on the whole graph; METIS,
balanced by validation nodes, counts in PLS's seconds. Rows go to runs/bench/soup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.soup_ingredients import Case, prepared
from tests.bench.soup_sides import Graph, Records

GRID = 20
LS = {"epochs": 25, "rate": 10.0, "period": 4}
PLS = {"epochs": 50, "rate": 1.0, "period": 4, "parts": 32, "drawn": 4}
LIMIT_S = 90.0
MODELS = ("gcn", "sage", "gat")

SPARSE = Case("wordnet", 50, valid=0.02, train=0.1, hidden=128, warmup=8, epochs=2, lr=2e-2)
DENSE = Case("wordnet", hidden=128)
THIRTY = Case("wordnet", 30, hidden=256, warmup=1, epochs=1, noisy=True)
TARGETS = {SPARSE: (24.5, 0.24), DENSE: (5.0, None)}
"""Case -> how many times faster than GIS, and in which share of its memory."""
ACCURACY = (
    Case("computers", 8, warmup=10, epochs=20, lr=3e-2),
    Case("physics", 8, warmup=10, epochs=10, dropout=0.5),
    Case("wordnet", 8, warmup=10, epochs=6, lr=2e-2),
)


def peak(case: Case, side: str) -> int:
    """Bytes that one side's process grew by, in a process of its own."""
    code = f"from tests.bench.soup import *; child({case!r}, {side!r})"
    # A fixed threshold: freed tensors go back to the system at once, so that growth is what is
    # allocated.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return int(done.stdout.split()[-1])


def child(case: Case, side: str) -> None:
    import ctypes

    import scipy.stats  # noqa: F401 - imports are no part of the growth
    import torch

    from stockpot.stages.peak_memory import PeakMemory
    from stockpot.stages.soup import cross_fit as kitchen

    PeakMemory.every_s = 0.002
    torch.set_num_threads(1)
    run, paths = prepared(case)
    small = Records(run, paths[:2])  # nor are the libraries' own tables and buffers
    small.scorer.gradient(small.stack.blend([0, 1]), [0])
    del small
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with PeakMemory() as found:
        if side == "full graph":
            graph = Graph(run, paths)
            for i in range(3):
                graph.accuracy(graph.stack.blend([0, i]))
        else:
            kitchen.cook(Records(run, paths).scorer, method=side)
    print(found.peak_bytes)


def gis_passes(count: int) -> int:
    return count + 1 + (count - 1) * GRID


def row(case: Case, what: str, ours: float, peer: str, peer_value: float, **more: object) -> dict:
    """One of runs/bench/soup.json; the ratio is peer by ours unless given."""
    every = {
        "unit": "CPU s",
        "threads": 1,
        "n": 1,
        "ratio": peer_value / ours,
        "target": None,
        "met": None,
    }
    return (
        {"what": what, "dataset": case.name, "ours": ours, "peer": peer, "peer_value": peer_value}
        | every
        | more
    )


def measure(case: Case, runs: int, *, published: bool) -> list[dict]:
    """Rows of one case: our LS against GIS, and every method's own figures."""
    import torch

    from stockpot.stages.soup.cross_fit import cook

    torch.set_num_threads(1)
    run, paths = prepared(case)
    graph = Graph(run, paths)
    ours, passes, ratios = [], [], []
    for turn in range(runs + 1):
        started = time.process_time()
        cook(Records(run, paths).scorer, method="learned")
        mine = time.process_time() - started
        times = []
        for i in range(2):
            started = time.process_time()
            graph.accuracy(graph.stack.blend([turn % case.count, i]))
            times.append(time.process_time() - started)
        if turn:  # the first turn warms up
            ours.append(mine)
            passes.append(statistics.mean(times))
            ratios.append(passes[-1] * gis_passes(case.count) / mine)
    # GIS as published, cross-fitted like ours, by records: the same search, so its accuracy needs
    # no full-graph pass.
    records = Records(run, paths)
    cooked = cook(records.scorer)
    facts, used, tensors = cooked.facts, records.scorer.passes, len(records.stack.names)
    published_gis = cook(records.scorer, method="grid")
    theirs = published_gis.facts["methods"]["grid"]["cross_fitted_accuracy"]
    grid = published_gis.soups["grid"].alpha
    mid, full = statistics.median(ours), statistics.median(passes) * gis_passes(case.count)
    select = {name: m["cross_fitted_accuracy"] for name, m in facts["methods"].items()}
    tests = {name: graph.accuracy(made.alpha, "test") for name, made in cooked.soups.items()}
    print(f"\n{case.name}: {facts['parts']}, chosen {facts['chosen']}; {facts['remarks']}")
    print("| method | select % | test %, full graph | seconds | peak MB | effective ingredients |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name, method in facts["methods"].items():
        s, b = cooked.seconds[name], peak(case, name)
        print(f"| {name} | {100 * select[name]:.2f} | {100 * tests[name]:.2f} | {s:.1f} | "
        f"{b / 1e6:.0f} "
              f"| {method['n_eff']:.1f} |")  # fmt: skip
        rows.append(
            row(
                case,
                f"soup {name}",
                s,
                f"GIS, grid {GRID}, full graph",
                full,
                unit="s",
                peak_bytes=b,
                select_accuracy=select[name],
                test_accuracy=tests[name],
                n_eff=method["n_eff"],
            )
        )
    print(f"| GIS grid {GRID}, full graph | {100 * theirs:.2f} | "
    f"{100 * graph.accuracy(grid, 'test'):.2f} "
          f"| {full:.1f} | | |")  # fmt: skip
    print(
        f"| all predictions averaged | {100 * facts['ensemble']['valid_accuracy']:.2f} | | | | |",
        flush=True,
    )
    if published:
        for name, took, alpha in as_published(graph, tensors, case.count):
            scored = records.scorer.outcome(alpha, range(len(records.scorer.batches))).accuracy
            test = graph.accuracy(alpha, "test")
            print(
                f"| {name}, full graph | {100 * scored:.2f} | {100 * test:.2f} | {took:.1f} | | |",
                flush=True,
            )
            rows.append(
                row(
                    case,
                    f"our LS against {name} on the whole graph",
                    mid,
                    name,
                    took,
                    test_accuracy=test,
                    select_accuracy=select.get("learned"),
                    peer_select_accuracy=scored,
                )
            )
    if "learned" not in select:
        return rows
    ratio, no_worse = statistics.median(ratios), select["learned"] >= theirs
    speed, memory = TARGETS.get(case, (None, None))
    rows.append(
        row(
            case,
            "our LS on validation records against GIS by full-graph passes",
            mid,
            f"GIS, grid {GRID}, full graph: {gis_passes(case.count)} passes (two timed "
            f"beside each run)",
            full,
            n=runs,
            ratio=ratio,
            target=speed,
            met=None if speed is None else ratio >= speed and no_worse,
            select_accuracy=select["learned"],
            peer_select_accuracy=theirs,
            record_passes=used,
        )
    )
    mine, other = (
        next(r["peak_bytes"] for r in rows if r["what"] == "soup learned"),
        peak(case, "full graph"),
    )
    rows.append(row(case, "peak memory of our LS against GIS by full-graph "
    "passes", mine, "GIS, full graph", other,
                    unit="bytes", target=None if memory is None else 1 / memory,
                    met=None if memory is None else mine <= memory * other))  # fmt: skip
    print(f"our LS {mid:.2f} s, GIS {full:.1f} s: {ratio:.1f}x; selection "
    f"{100 * select['learned']:.2f} % against "
          f"{100 * theirs:.2f} %; memory {mine / 1e6:.0f} MB against {other / 1e6:.0f} MB "
          f"({100 * mine / other:.0f} %)", flush=True)  # fmt: skip
    return rows


def as_published(graph: Graph, tensors: int, count: int):
    """(name, CPU seconds, table) of LS and PLS on the whole graph, at the authors' settings."""
    from stockpot.stages.soup.published import learn_published

    rng = np.random.default_rng(0)
    metis = cpu_seconds()
    part = graph.parts(PLS["parts"])
    metis = cpu_seconds() - metis
    drawn = [rng.choice(PLS["parts"], PLS["drawn"], replace=False) for _ in range(PLS["epochs"])]
    for name, setting, draws, make, before in (
        ("LS as published", LS, [None] * LS["epochs"], lambda _: graph.whole(), 0.0),
        ("PLS as published", PLS, drawn, lambda d: graph.union(part, d), metis),
    ):
        started = time.process_time()
        alpha = learn_published(
            (tensors, count),
            lambda a, b, d, make=make: graph.gradient(a, b, make(d)),
            draws,
            rate=setting["rate"],
            period=setting["period"],
        )
        yield name, before + time.process_time() - started, alpha


def cpu_seconds() -> float:
    """Of this process and of the children it waited for: METIS runs in one."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def thirty() -> list[dict]:
    """All our methods on 30 ingredients with two threads: CPU seconds of both, which no quiet
    machine exceeds."""
    import torch

    from stockpot.stages.soup.cross_fit import cook

    run, paths = prepared(THIRTY)
    torch.set_num_threads(2)
    wall, cpu = time.perf_counter(), time.process_time()
    cooked = cook(Records(run, paths).scorer)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gis = cooked.seconds.get("gis", 0.0)
    own = max(0.0, gis - cooked.phases["rank"] - cooked.phases["filter"]) if gis else 0.0
    took = cpu * (1 - own / wall)
    print(f"\n{THIRTY.name}, hidden {THIRTY.hidden}: {took:.1f} CPU s without GIS, {cpu:.1f} with "
    f"it; "
          f"{wall:.1f} s passed, {wall - own:.1f} without GIS; {cooked.phases}; chosen "
          f"{cooked.chosen}")  # fmt: skip
    return [row(THIRTY, f"all our methods but GIS on 30 ingredients, hidden "
    f"{THIRTY.hidden}", took, "limit", LIMIT_S,
                threads=2, target=1.0, met=took < LIMIT_S, wall_s=wall - own)]  # fmt: skip


def accuracy(cases: list[Case], repeats: int) -> list[dict]:
    """Mean gain in test accuracy (test records) of the chosen soup over the best ingredient and
    over greedy."""
    import torch

    from stockpot.stages.soup.cross_fit import cook

    rows = []
    for case in cases:
        gains, whole = [], []
        for seed in range(repeats):
            run, paths = prepared(replace(case, seed=seed * 1000))
            torch.set_num_threads(1)
            graph, records = Graph(run, paths), Records(run, paths)
            cooked = cook(records.scorer)
            test = {name: records.test(made.alpha) for name, made in cooked.soups.items()}
            soup, best = (
                graph.accuracy(cooked.soups[name].alpha, "test") for name in (cooked.chosen, "best")
            )
            whole.append(soup - best)
            gains.append(
                (
                    test[cooked.chosen] - test["best"],
                    test[cooked.chosen] - test["greedy"],
                    test["best"],
                )
            )
            print(f"{case.name} seed {seed}: chosen {cooked.chosen}, test %:",
                  {name: round(100 * value, 2) for name, value in test.items()},
                  f"full graph {100 * best:.2f} -> {100 * soup:.2f}", flush=True)  # fmt: skip
            for words in cooked.remarks:
                print(f"  {words}", flush=True)
        best, greedy, level = (np.array(column) for column in zip(*gains, strict=True))
        error = float(best.std(ddof=1) / len(best) ** 0.5) if len(best) > 1 else float("nan")
        mean = float(level.mean() + best.mean())
        for what, found, target in (("best single", best, 0.003), ("greedy", greedy, 0.0)):
            gain = float(found.mean())
            rows.append(
                row(
                    case,
                    f"test accuracy of the chosen soup over {what}",
                    mean,
                    what,
                    mean - gain,
                    n=repeats,
                    unit="accuracy",
                    ratio=gain,
                    target=target,
                    met=gain >= target,
                    standard_error=error,
                    gain_on_the_whole_graph=float(np.mean(whole)),
                )
            )
        print(f"{case.name}: best {100 * level.mean():.2f} %, gain over best "
        f"{100 * best.mean():+.2f} +- "
              f"{100 * error:.2f}, over greedy {100 * greedy.mean():+.2f}; over best on the whole "
              f"graph "
              f"{100 * np.mean(whole):+.2f}", flush=True)  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="*", default=["sparse", "dense", "thirty"], help="of sparse, dense, thirty"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--accuracy", action="store_true", help="gains on --data of --models over --repeats"
    )
    parser.add_argument(
        "--grid", action="store_true", help="--counts ingredients of --models on --data"
    )
    parser.add_argument("--data", nargs="*", default=[c.data for c in ACCURACY])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--counts", nargs="*", type=int, default=[10, 30, 50])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--published", action="store_true", help="LS and PLS as published too")
    parser.add_argument("--full", action="store_true", help="--accuracy, --grid and --published")
    args = parser.parse_args()
    rows = []
    for name in args.cases:
        found = (
            thirty()
            if name == "thirty"
            else measure(
                {"sparse": SPARSE, "dense": DENSE}[name],
                args.runs,
                published=args.published or args.full,
            )
        )
        rows += found
    every = [
        replace(case, model=model)
        for case in ACCURACY
        if case.data in args.data
        for model in args.models
    ]
    if args.grid or args.full:
        for case in every:
            for count in args.counts:
                rows += measure(
                    replace(case, count=count), args.runs, published=args.published or args.full
                )
    if args.accuracy or args.full:
        rows += accuracy(every, args.repeats)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/soup.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
