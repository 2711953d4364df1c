"""The table of `train.validate` in stages/train/README.md: one training that validates after every
epoch, and one that spends a share on it, at few labels.

    python -m tests.bench.validation --data computers physics --rates 0.05 0.01 --seeds 0 1

A line a training: accuracies of the model, epochs from one validation to the next, CPU seconds and
how many of them were validation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from stockpot.stages.train import trainer
from stockpot.store.store import Store
from tests.bench.defaults import REDUCED, SOURCES
from tests.bench.inline import run
from tests.bench.soup_bias import wordnet_ball

SETTINGS = (
    "train.ingredients=1",
    "train.hidden=64",
    "train.lr=1e-2",
    "dataset.split.valid=0.25",
    "soup.method=best",
    "infer.full_graph=false",
)


def timed(spent: dict[str, float], name: str, work: Any) -> Any:
    """`work`, adding the CPU seconds of its calls to `spent[name]`."""

    def inner(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        result = work(*args, **options)
        spent[name] = spent.get(name, 0.0) + time.process_time() - started
        return result

    return inner


def measured(data: str, rate: float, seed: int, share: str, folder: Path) -> dict[str, Any]:
    """One training, as it is by default but for `SETTINGS`; figures are those of its artifact."""
    recipe = folder / f"{data}.toml"
    source = SOURCES.get(data, f"npz:{folder / 'wordnet-ball.npz'}")
    recipe.write_text(f'[dataset]\nsource = "{source.replace("../shared", "shared")}"\n')
    sets = [*SETTINGS, f"dataset.split.train={rate}", f"train.validate={share}"]
    sets += [f"dataset.split.seed={seed}", f"train.seed={seed}"]
    sets += [f"features.reduce={REDUCED.get(data, 128)}"] if data != "computers" else []
    spent: dict[str, float] = {}
    before = trainer.train, trainer.evaluate
    trainer.train = timed(spent, "cpu_seconds", trainer.train)
    trainer.evaluate = timed(spent, "validating", trainer.evaluate)
    try:
        summary = run(recipe, sets, folder / "store", folder / "runs")
    finally:
        trainer.train, trainer.evaluate = before
    single = summary["train"]["ingredients"][0]
    params = Store(folder / "store").open("train", single["key"]).manifest["params"]
    return {
        "data": data,
        "rate": rate,
        "seed": seed,
        "validate": share,
        "every": params.get("validate_every", 1),
        "epochs": single["epochs"],
        "valid": single["valid_accuracy"],
        "test": single["test_accuracy"],
        **{name: round(value, 1) for name, value in spent.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", default=["wordnet-ball"], help=f"wordnet-ball, {', '.join(SOURCES)}"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", nargs="+", default=["1", "auto"])
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/validation"))
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if "wordnet-ball" in args.data and not (folder / "wordnet-ball.npz").exists():
        wordnet_ball(folder / "wordnet-ball.npz")
    for data in args.data:
        for rate in args.rates:
            for seed in args.seeds:
                for share in args.shares:
                    print(json.dumps(measured(data, rate, seed, share, folder)), flush=True)


if __name__ == "__main__":
    main()
