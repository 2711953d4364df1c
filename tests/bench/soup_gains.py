"""What a soup gains over the best single model, both sides tuned alike on validation, over splits
that tuned nothing.

    python -m tests.bench.soup_gains  # tunes on split seeds 100 to 102, confirms on 0 to 9

A setting is a learning rate and a range of `train.vary`; each trains six ingredients from one
warm-up. The single side takes the setting whose ingredient of best validation accuracy is best on
average over the tuning splits, by that accuracy; the soup side the one whose soup (`auto`) is, by
its cross-fitted accuracy, half of validation each. On the other splits both are trained with what
was taken: test accuracy of the ingredient that is best on validation, and of the soup that `auto`
ships. Rows go to runs/bench/soup-gains.json; trainings are kept beside those of
`tests.bench.soup_bias`, whose graphs and records these are.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from tests.bench.soup_bias import FOLDER, GRAPHS, Graph, souped, train

RATES = (3e-3, 1e-2, 3e-2)
VARY = (1.0, 2.0, 4.0)
METHODS = ("best", "uniform", "greedy", "learned", "signed")
OUT = Path("runs/bench/soup-gains.json")


def measured(graph: Graph, seed: int, rate: float, vary: float) -> dict:
    """One split's ingredients of a setting, and their soup."""
    root = FOLDER / "gains" / f"{graph.name}-{seed}-{rate:g}-{vary:g}"
    row = root / "row.json"
    if not row.exists():
        started = time.process_time()
        train(graph, seed, {"train.lr": rate, "train.vary": vary}, root)
        found = souped(graph, seed, "best", root, METHODS)
        found |= {"rate": rate, "vary": vary, "cpu_seconds": time.process_time() - started}
        row.write_text(json.dumps(found, default=float))
    return json.loads(row.read_text())


def single(row: dict) -> float:
    """Validation accuracy of the best ingredient, as the trainer picks its epoch by it."""
    return row["methods"]["best"]["valid_accuracy"]


def said(values: list[float], sign: str = "") -> str:
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{100 * np.mean(values):{sign}.2f} ± {100 * error:.2f}"


def tuned(
    graph: Graph, seeds: list[int]
) -> tuple[tuple[float, float], tuple[float, float], list[dict]]:
    """(rate, vary) of the single side and of the soup side, and the table they were chosen by."""
    table = []
    for rate in RATES:
        for vary in VARY:
            rows = [measured(graph, seed, rate, vary) for seed in seeds]
            by_single = float(np.mean([single(row) for row in rows]))
            by_soup = float(np.mean([row["selection"] for row in rows]))
            table.append({"rate": rate, "vary": vary, "single": by_single, "soup": by_soup})
            print(
                f"{graph.name}: rate {rate:g}, vary {vary:g}: single {by_single:.4f}, soup "
                f"{by_soup:.4f}",
                flush=True,
            )
    best = [max(table, key=lambda line: line[side]) for side in ("single", "soup")]
    return (best[0]["rate"], best[0]["vary"]), (best[1]["rate"], best[1]["vary"]), table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", default=[g.name for g in GRAPHS])
    parser.add_argument("--tune", nargs="*", type=int, default=[100, 101, 102], help="split seeds")
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=list(range(10)), help="split seeds that confirm"
    )
    args = parser.parse_args()
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    lines = [
        (
            "| graph | splits | single: rate, vary | test | soup: rate, vary | test | soup less "
            "single | soups shipped |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for graph in [g for g in GRAPHS if g.name in args.data]:
        of_single, of_soup, table = tuned(graph, args.tune)
        singles = [measured(graph, seed, *of_single)["tests"]["best"] for seed in args.seeds]
        soups = [measured(graph, seed, *of_soup) for seed in args.seeds]
        gains = [soup["test"] - one for soup, one in zip(soups, singles, strict=True)]
        shipped = sum(row["chosen"] != "best" for row in soups)
        results[graph.name] = {"tuning": table, "single": singles, "soup": soups, "gains": gains}
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(results, indent=1))
        lines.append(
            f"| {graph.name} | {len(gains)} | {of_single[0]:g}, {of_single[1]:g} | {said(singles)} "
            f"| {of_soup[0]:g}, {of_soup[1]:g} | {said([row['test'] for row in soups])} | "
            f"{said(gains, '+')} "
            f"| {shipped} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
