"""Builds the records of one recipe and prints the CPU seconds of what follows the ingested graph.

    python -m tests.bench.training_build JOB.json    # {recipe, sets, folder}

Everything is built twice, each time in an empty store, and the second time counts: kernels are
compiled and loaded by then. A job's `first` names the recipe of the first time: of a small graph,
where there is no time to build the graph itself twice.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.inline import run

BEFORE = ("ingest", "split")
NODES = ("pack:train", "pack:valid", "order")


def built(recipe: Path, sets: list[str], store: Path, runs: Path) -> float:
    """CPU seconds from the ingested and split graph to packed records."""
    run(recipe, sets, store, runs, BEFORE)
    started = time.process_time()
    run(recipe, sets, store, runs, NODES)
    return time.process_time() - started


def main(path: Path) -> None:
    job = json.loads(path.read_text())
    recipe, folder = Path(job["recipe"]), Path(job["folder"])
    with tempfile.TemporaryDirectory(dir=folder) as first:
        small = Path(job.get("first", recipe))
        built(small, job["sets"], Path(first) / "store", Path(first))
    store = folder / "stores" / recipe.stem
    shutil.rmtree(store, ignore_errors=True)
    print(json.dumps({"seconds": built(recipe, job["sets"], store, folder)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
