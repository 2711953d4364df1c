"""A side of `make bench-inference` in a process of its own: the same nodes predicted anew for each
line it is sent, and CPU seconds and accuracy back.

    python -m tests.bench.inference_child JOB.json

Kinds: "records", packed ones; "dgl", batches of neighbours drawn anew; "full", exact inference on
the whole graph. Weights and features are in memory; what is compiled or loaded at a first use is
used once before the clock counts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.locate import artifact_of
from stockpot.stages.infer.full_graph import full_graph_logits
from stockpot.stages.loader.options import Delivery, Schedule
from stockpot.stages.train.evaluate import Score, evaluate, open_steps, score
from stockpot.stages.train.model import load_model
from tests.bench.training_batches import BATCHES, whole_graph

if TYPE_CHECKING:
    from collections.abc import Callable


def side(job: dict[str, Any]) -> Callable[[], Score]:
    """What predicts the nodes of `job["ids"]` once."""
    model = load_model(Path(job["weights"]))
    if job["kind"] == "records":
        pack = artifact_of(Path(job["run"]), "pack:infer")
        steps = open_steps(pack, model, Schedule(shuffle=False), Delivery(prefetch=0))
        return lambda: evaluate(model, steps)
    with np.load(job["graph"]) as z:
        graph = {name: z[name] for name in z.files}
    x, ids = torch.from_numpy(np.load(job["features"])), np.load(job["ids"]).astype(np.int64)
    if job["kind"] == "dgl":
        batches = BATCHES["dgl"](job, model, graph | {"valid": ids}, x)

        def sampled() -> Score:
            found = Score()
            with torch.no_grad():
                for rows, adjs, y in batches.valid():
                    found += score(model(rows, adjs), y)
            return found

        return sampled
    matrix, y = whole_graph(graph, model.config), torch.from_numpy(graph["y"].astype(np.int64))
    return lambda: score(full_graph_logits(model, matrix, x)[ids], y[ids])


def main(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    predict = side(job)
    predict()
    print(json.dumps({"began": 0.0}), flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        found = predict()
        seconds = time.process_time() - started
        print(json.dumps({"seconds": seconds, "accuracy": found.accuracy}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
