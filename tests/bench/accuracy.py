"""The accuracy table of stages/README.md: stockpot's single models against full-batch training of
the same model, and SIGN, which reads no edge, as the baseline of all.

    python -m tests.bench.accuracy  # WordNet 1 seed, Physics and Computers 3; GCN, SAGE and SIGN
    python -m tests.bench.accuracy --models sign sgc  # the models of rows alone
    python -m tests.bench.accuracy --data computers --models gcn --seeds 3
    python -m tests.bench.accuracy --defaults  # recipes that name only data: tests.bench.defaults

Both sides train to their own early stop on the same split, features and model; the result is that
of the best validation epoch. Rows go to runs/bench/accuracy.json as they are measured, so a stopped
run loses nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.bench import defaults

SEEDS = {"wordnet": 1, "physics": 3, "computers": 3}
EARLY_STOP = ["train.schedule=plateau", "train.epochs=1000", "train.patience=40"]
"""Both sides train until validation accuracy has not risen for long: 40 epochs of many steps, or
100 of one."""


BASELINE = {"sgc": "features.propagate=3", "sign": "features.propagate=3"}
"""Models of rows, trained on records without edges; they have no full batch that differs."""
SHORT = ["train.layers=2", "train.epochs=20", "train.schedule=cosine"]
CHOSEN = {
    "wordnet": [*SHORT, "train.lr=1e-2", "train.dropout=0.2"],
    "computers": [*SHORT, "train.lr=3e-3"],
    "physics": [*SHORT, "train.lr=3e-3"],
}
"""Short trainings of SIGN; of WordNet's rates and dropouts validation chose (stages/README.md)."""


def recipe_of(data: str) -> Path:
    """The recipe that a row is measured with: features as they are, or one side had others."""
    return Path("tests/bench/wordnet-gcn.toml" if data == "wordnet" else f"data/{data}.toml")


def stockpot(data: str, model: str, seed: int, extra: list[str], store: str, runs: str) -> dict:
    rows = []
    if model in BASELINE:
        rows = ["batches.method=propagate", BASELINE[model], *CHOSEN.get(data, [])]
    sets = [
        f"train.model={model}",
        f"train.seed={seed}",
        "train.ingredients=1",
        *EARLY_STOP,
        *rows,
        *extra,
    ]
    command = [
        sys.executable,
        "-m",
        "stockpot.cli",
        "run",
        str(recipe_of(data)),
        "--store",
        store,
        "--runs",
        runs,
    ]
    for pair in sets:
        command += ["--set", pair]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((Path(runs) / recipe_of(data).stem / "summary.json").read_text())
    single = summary["train"]["ingredients"][0]
    return {
        "valid": single["valid_accuracy"],
        "test": summary["infer"]["test_accuracy"],
        "test_full_graph": summary["infer"]["full_graph_test_accuracy"],
        "epochs": single["epochs"],
        "seconds": single["seconds"],
    }


def full_batch(data: str, model: str, seed: int, runs: str, extra: list[str]) -> dict:
    run = f"{runs}/{recipe_of(data).stem}"
    command = [
        sys.executable,
        "-m",
        "tests.bench.full_batch",
        run,
        "--model",
        model,
        "--seeds",
        str(seed),
    ]
    command += extra
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = json.loads(out.strip().splitlines()[-1])
    return {
        "valid": line["valid_accuracy"],
        "test": line["test_accuracy"],
        "epochs": line["epochs"],
        "seconds": line["seconds"],
    }


def mean(rows: list[dict], key: str) -> float:
    return sum(r[key] for r in rows) / len(rows)


def main() -> None:
    if sys.argv[1:2] == ["--defaults"]:
        defaults.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=list(SEEDS))
    parser.add_argument("--models", nargs="+", default=["gcn", "sage", "sign"])
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="extra",
        help="recipe override for stockpot's side",
    )
    parser.add_argument(
        "--patience", type=int, default=100, help="epochs without a better validation, full batch"
    )
    parser.add_argument("--store", default="runs/store")
    parser.add_argument("--runs", default="runs/accuracy")
    parser.add_argument("--no-full-batch", action="store_true", help="only stockpot's side")
    parser.add_argument("--lr", type=float, default=5e-3, help="learning rate of full batch")
    args = parser.parse_args()
    full = ["--patience", str(args.patience), "--lr", str(args.lr)]
    out = Path("runs/bench/accuracy.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    print(
        "| data | model | seeds | full batch | stockpot | less, pt | full-graph inference | "
        "batched less that, pt |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for data in args.data:
        for model in args.models:
            seeds = range(args.seeds or SEEDS[data])
            started = time.time()
            ours = [stockpot(data, model, s, args.extra, args.store, args.runs) for s in seeds]
            peer = (
                []
                if args.no_full_batch or model in BASELINE
                else [full_batch(data, model, s, args.runs, full) for s in seeds]
            )
            row = {
                "data": data,
                "model": model,
                "ours": ours,
                "full_batch": peer,
                "wall_seconds": time.time() - started,
            }
            rows.append(row)
            out.write_text(json.dumps(rows, indent=1))
            test, graph = mean(ours, "test"), mean(ours, "test_full_graph")
            reference = mean(peer, "test") if peer else float("nan")
            print(
                f"| {data} | {model} | {len(ours)} | {reference:.4f} | {test:.4f} | "
                f"{100 * (test - reference):+.2f} "
                f"| {graph:.4f} | {100 * (test - graph):+.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
