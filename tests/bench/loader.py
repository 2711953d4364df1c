"""The loader used as torch's are: a plain loop, DataLoader with and without workers, Lightning:
same batches, CPU.

    python -m tests.bench.loader WHERE  # a run, a store or a pack artifact; default runs/wordnet

Every side is a process of its own that reads the same epochs and does nothing with a batch; CPU
seconds are of it and its workers, from after its imports on. `same` compares the outputs of every
batch, in order, with those of the plain loop. The floor of a step that a worker makes is its copy
to the process that trains. Rows go to runs/bench/loader.json.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from stockpot import open_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCHS = 4
SIDES = {
    "plain loop": None,
    "plain loop, no thread": None,
    "DataLoader, 0 workers": {"num_workers": 0},
    "DataLoader, 2 workers": {"num_workers": 2},
    "DataLoader, 2 that persist": {"num_workers": 2, "persistent_workers": True},
    "Lightning, plain": None,
    "Lightning, DataLoader, 2 that persist": {"num_workers": 2, "persistent_workers": True},
}


def readable(where: str, side: str) -> Any:
    """What this side iterates."""
    batches = open_batches(where, seed=0, adj="norm", prefetch=0 if "no thread" in side else 2)
    list(
        open_batches(where, seed=0, adj="norm")
    )  # files in the page cache, records checked once for all sides
    way = SIDES[side]
    return batches if way is None else DataLoader(batches.dataset(), batch_size=None, **way)


def looped(loader: Any, note: Callable[[Any], None]) -> None:
    """Read all epochs in a loop."""
    for _ in range(EPOCHS):
        for batch in loader:
            note(batch)


def fitted(loader: Any, note: Callable[[Any], None]) -> None:
    """Read all epochs by a Trainer whose model notes its batches."""
    import pytorch_lightning as pl
    import torch

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch: Any) -> Any:
            note(batch)
            return self.weight.sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    pl.Trainer(max_epochs=EPOCHS, accelerator="cpu", **quiet).fit(Net(), loader)


def cpu_seconds() -> float:
    """Of this process and the children that have ended."""
    return sum(os.times()[:4])


def measure(where: str, side: str) -> dict[str, Any]:
    """One side, in this process."""
    warnings.simplefilter("ignore")
    read = looped
    if side.startswith("Lightning"):
        import pytorch_lightning  # noqa: F401 - before the clock

        read = fitted
    whole, count = hashlib.blake2b(digest_size=16), 0

    def note(batch: Any) -> None:
        nonlocal count
        ids = batch.input_id.numpy()
        whole.update(np.int64(len(ids)).tobytes() + ids.tobytes())
        count += 1

    loader = readable(where, side)
    cpu, wall = cpu_seconds(), time.perf_counter()
    read(loader, note)
    del loader
    gc.collect()  # workers that persist end, and count
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {
        "digest": whole.hexdigest(),
        "batches": count,
        "cpu": cpu / EPOCHS,
        "wall_us": 1e6 * wall / count,
    }


def results(where: str) -> Iterator[dict[str, Any]]:
    """Every side, each in a new process."""
    plain = None
    for side in SIDES:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.bench.loader",
            where,
            "--side",
            side,
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = json.loads(out.strip().splitlines()[-1])
        plain = found if plain is None else plain
        same = found["digest"] == plain["digest"]
        yield {
            "what": side,
            **found,
            "cpu_us": 1e6 * found["cpu"] * EPOCHS / found["batches"],
            "same": same,
        }


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("where", nargs="?", default="runs/wordnet")
    parser.add_argument("--side", choices=list(SIDES))
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.where, args.side)))
        return
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    print(
        "| read by | same batches | CPU us a batch | CPU s an epoch | wall us a batch "
        "|\n|---|---|---|---|---|"
    )
    rows = []
    for row in results(args.where):
        cells = (
            "yes" if row["same"] else "NO",
            f"{row['cpu_us']:,.0f}",
            f"{row['cpu']:.2f}",
            f"{row['wall_us']:,.0f}",
        )
        print(f"| {row['what']} | {' | '.join(cells)} |", flush=True)
        rows.append(
            {
                "what": row["what"],
                "dataset": args.where,
                "ours": row["cpu"],
                "peer": "plain loop",
                "peer_value": rows[0]["ours"] if rows else row["cpu"],
                "unit": "CPU s an epoch",
                "threads": 1,
                "n": EPOCHS,
                "ratio": (rows[0]["ours"] if rows else row["cpu"]) / row["cpu"],
                "target": "same batches",
                "met": row["same"],
                "cpu_us": row["cpu_us"],
                "wall_us": row["wall_us"],
                "batches": row["batches"],
            }
        )
    out = Path("runs/bench/loader.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit,
        "rows": rows,
    }
    out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
