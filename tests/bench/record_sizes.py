"""What neighbours kept and clusters mixed are worth: validation accuracy by CPU seconds of training
on records of several sizes, all else alike.

    python -m tests.bench.record_sizes               # all graphs, 50, 5 and 1 % of labels
    python -m tests.bench.record_sizes --data wordnet --labels 50 --top-k 8 16 --mix 16 512

One training (seed 100) of the graph's GraphSAGE for each size, one thread, a cosine at --rate, as
many epochs for all; and one with as many epochs as take the seconds of the fastest size. Validation
is in no seconds. Accuracy is that of exact inference on the whole graph, on validation nodes. Rows
go to runs/bench/record_sizes.json.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.machine import machine
from tests.bench.training_case import TUNING_SEED, Case
from tests.bench.training_graphs import GRAPHS

if TYPE_CHECKING:
    from tests.bench.time_to_accuracy import Point


def measured(
    case: Case, sizes: list[tuple[int, int]], rate: float, hops: int
) -> list[dict[str, Any]]:
    """A row for each size; `hops` of the features are propagated."""

    def trained(size: tuple[int, int], epochs: int) -> Point:
        top_k, mix = size
        sets = [f"batches.top_k={top_k}", f"batches.mix={mix}", f"features.propagate={hops}"]
        records = case.built(f"k{top_k}-mix{mix}-hops{hops}", *sets)
        job = case.job("stockpot", records, TUNING_SEED, lr=rate, epochs=epochs, every=epochs)
        return case.alone(job)[-1]

    ends = {size: trained(size, case.epochs) for size in sizes}
    least = min(end.train_seconds for end in ends.values())
    rows = []
    for size, end in ends.items():
        epochs = max(1, round(case.epochs * least / end.train_seconds))
        equal = end if epochs == case.epochs else trained(size, epochs)
        rows.append(
            {
                "dataset": case.name, "top_k": size[0], "mix": size[1], "hops": hops,
                "epochs": case.epochs, "valid": end.valid, "seconds": end.train_seconds,
                "equal": {"epochs": epochs, "valid": equal.valid, "seconds": equal.train_seconds},
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=list(GRAPHS), default=list(GRAPHS))
    parser.add_argument("--labels", nargs="+", type=int, default=[50, 5, 1], help="percent")
    parser.add_argument("--top-k", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--mix", nargs="+", type=int, default=[16, 512])
    parser.add_argument("--hops", type=int, default=0, help="of propagated features")
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--epochs", type=int, default=0, help="0: by graph")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/record_sizes"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/record_sizes.json"))
    args = parser.parse_args()
    args.dgl = None  # no peer takes part
    args.folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    print("| graph, labels | nodes an output | mix | valid | seconds | in equal seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, labels in product(args.data, args.labels):
        if not GRAPHS[name].path.exists():
            print(f"{name}: {GRAPHS[name].path} is not there, left out", flush=True)
            continue
        case = Case(GRAPHS[name], labels, args)
        rows = measured(case, list(product(args.top_k, args.mix)), args.rate, args.hops)
        found += rows
        args.out.write_text(json.dumps({**machine(), "rows": found}, indent=1))
        for row in rows:
            equal = row["equal"]
            print(
                f"| {row['dataset']} | {row['top_k']} | {row['mix']} | {100 * row['valid']:.2f} "
                f"| {row['seconds']:.1f} | {100 * equal['valid']:.2f} ({equal['seconds']:.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
