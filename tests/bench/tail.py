"""The table of tails in stages/train/README.md: soups of the last epochs of one training, whatever
their number and spacing, beside averages over steps and the best single epoch.

    python -m tests.bench.tail --seeds 0 1 2  # a ball of 10,000 nodes of WordNet
    python -m tests.bench.tail --whole --epochs 20 --seeds 0  # all of it: an hour

The recipe is data/wordnet.toml at its constant rate, without a warm-up. One training of the most
epochs has the shorter ones in it, since nothing but the number of epochs sets them apart.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stockpot.planning.plan import Planner
from stockpot.planning.recipe import load
from stockpot.stages.loader.options import Delivery, Schedule
from stockpot.stages.train import trainer
from stockpot.stages.train.ema import Ema
from stockpot.stages.train.evaluate import evaluate, open_steps, settings
from stockpot.stages.train.stage import fitted
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
from stockpot.store.store import Store
from tests.bench.inline import run
from tests.bench.soup_bias import wordnet_ball

if TYPE_CHECKING:
    from torch import Tensor

DECAYS = (0.99, 0.998)
ENDS = (20, 44)
SHARES, SPACINGS = (0.5, 0.75, 0.95), (1, 2, 3, 5)


def recipe_of(folder: Path, *, whole: bool) -> Path:
    """data/wordnet.toml, or the same on a ball of it that trains in half a minute."""
    path = Path("data/wordnet.toml")
    if whole:
        return path
    ball, own = folder / "wordnet-ball.npz", folder / "wordnet-ball.toml"
    if not ball.exists():
        wordnet_ball(ball)
    source = f'source = "npz:{ball}"\nsplit = {{ train = 0.3, valid = 0.1, seed = 0 }}'
    own.write_text(path.read_text().replace('source = "wordnet"', source))
    return own


def trained(recipe: Path, folder: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Models of one training: those of every epoch, and averages over steps where one ends."""
    sets = ["train.warmup=0", f"train.epochs={epochs}", f"train.seed={seed}"]
    sets.append("train.ingredients=tail")
    run(recipe, sets, folder / "store", folder / "runs", ["pack", "order"])
    store = Store(folder / "store")
    planner = Planner(load(recipe, sets), store, StatCache(None), Seen(None))
    planned = {p.node.id: p for p in planner.plan()}
    readers = {
        name: store.open(planned[name].node.stage, planned[name].key)
        for name in ("pack:train", "pack:valid", "pack:test", "order")
    }
    inputs = {"train": readers["pack:train"], "valid": readers["pack:valid"]}
    inputs["order"] = readers["order"]
    params = replace(planned["train:0"].params, tail=epochs, tail_every=1, validate_every=1)
    emas: dict[float, Ema] = {}
    averages: dict[tuple[int, float], dict[str, Tensor]] = {}
    plain = trainer._step

    def step(model: Any, adam: Any, batch: Any, epoch: int, index: int, precision: str) -> Any:
        for decay in DECAYS:
            if decay not in emas:  # as in a training: from the weights before the first step
                emas[decay] = Ema(model, decay)
        found = plain(model, adam, batch, epoch, index, precision)
        for decay, ema in emas.items():
            ema.update(model)
            if epoch + 1 in ENDS:
                averages[epoch + 1, decay] = {k: v.clone() for k, v in ema.state.items()}
        return found

    trainer._step = step
    try:
        with tempfile.TemporaryDirectory() as scratch:
            result = fitted(
                None,
                inputs,
                params=params,
                folder=Path(scratch),
                threads=1,
                start=None,
                warmup=None,
            )
    finally:
        trainer._step = plain
    return {"result": result, "averages": averages, "readers": readers}


def mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean in float64 of models of one architecture without buffers."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).float()
        for name in states[0]
    }


def show(found: dict[str, Any], seed: int, most: int) -> None:
    """Print a line a model: its accuracy on the packed records of validation and of test."""
    result, model = found["result"], found["result"].model
    steps = {
        split: open_steps(
            found["readers"][f"pack:{split}"], model, Schedule(shuffle=False), Delivery()
        )
        for split in ("valid", "test")
    }

    def line(epochs: int, name: str, state: dict[str, Tensor]) -> None:
        model.load_state_dict(state)
        scores = {split: evaluate(model.eval(), of).accuracy for split, of in steps.items()}
        print(json.dumps({"seed": seed, "epochs": epochs, "model": name, **scores}), flush=True)

    with settings(1):
        for end in (epochs for epochs in ENDS if epochs <= most):
            valid = [row["valid_accuracy"] for row in result.history[:end]]
            line(end, "best single", result.tail[valid.index(max(valid))])
            for decay in DECAYS:
                line(end, f"ema {decay}", found["averages"][end, decay])
            for share in SHARES:
                for every in SPACINGS:
                    count = int(share * end) // every
                    last = [result.tail[end - 1 - every * i] for i in range(count)]
                    line(end, f"last {share:g}, {count} models by {every}", mean(last))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whole", action="store_true", help="all of WordNet, not a ball of it")
    parser.add_argument("--epochs", type=int, default=max(ENDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/tail"))
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(folder, whole=args.whole)
    for seed in args.seeds:
        show(trained(recipe, folder, seed, args.epochs), seed, args.epochs)


if __name__ == "__main__":
    main()
