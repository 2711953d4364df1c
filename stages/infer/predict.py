"""Every output is predicted from its own record; all models see a record before the next one is
read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.errors import Corrupt
from stockpot.stages.train.evaluate import Score, score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.processes.process_group import Team
    from stockpot.stages.train.model import Network

__all__ = ["ENSEMBLE", "Predictions", "predict", "write_predictions"]

ENSEMBLE = "ensemble"
"""Name of the score of the mean of all ingredients' probabilities."""


class Predictions:
    """Outputs in the order of the sorted split: `n_id` i8[O], `y` i4[O] (-1 unlabelled),
    `probabilities` f4[O, C].
    """

    def __init__(self, outputs: int, classes: int) -> None:
        self.n_id: NDArray[np.int64] = np.full(outputs, -1, np.int64)
        self.y: NDArray[np.int32] = np.full(outputs, -1, np.int32)
        self.probabilities: NDArray[np.float32] = np.zeros((outputs, classes), np.float32)


@torch.no_grad()
def predict(
    models: Mapping[str, Network],
    chosen: str,
    steps: Any,
    outputs: int,
    classes: int,
    progress: Callable[[int, int, str], Any],
    team: Team | None = None,
    together: Mapping[str, int] | None = None,
) -> tuple[Predictions, dict[str, Score]]:
    """Probabilities by the chosen model, the score of every model, and that of the mean of some as
    `ENSEMBLE`.

    Parameters
    ----------
    models : by name, in eval mode.
    chosen : name of the one whose probabilities are returned.
    steps : `stockpot.stages.step.Step`s of the split, each output in exactly one.
    outputs, classes : sizes of the result.
    team : ranks that predict together, whose steps these are a part of; each gets the whole result.
    together : of how many ingredients each model is the only copy; None: no mean is asked for.

    Raises
    ------
    Corrupt
        An output is in no record.
    """
    found = Predictions(outputs, classes)
    together = together or {}
    scores = dict.fromkeys([*models, *([ENSEMBLE] if together else [])], Score())
    total = len(steps)
    for i, step in enumerate(steps):
        summed: Tensor | None = None
        for name, model in models.items():
            logits = model(step.x, step.adjs) if team is None else team.forward(model, step)
            scores[name] += score(logits, step.y)
            if name in together:
                weighed = logits.softmax(1) * together[name]
                summed = weighed if summed is None else summed + weighed
            if name == chosen:
                at = step.input_id.cpu().numpy()
                found.n_id[at] = step.n_id[: step.batch_size].cpu().numpy()
                found.y[at] = step.y.cpu().numpy()
                found.probabilities[at] = torch.softmax(logits, 1).cpu().numpy()
        if summed is not None:
            scores[ENSEMBLE] += score(summed.log(), step.y)
        progress(i + 1, total, "records")
    if team is not None:
        found.n_id += 1  # 0 where another rank has it
        found.y += 1
        for values in (found.n_id, found.y, found.probabilities):
            team.add(torch.from_numpy(values))
        found.n_id -= 1
        found.y -= 1
        scores = {name: team.total(scores[name])[0] for name in sorted(scores)}
    if (missing := np.flatnonzero(found.n_id < 0)).size:
        raise Corrupt(
            f"outputs: expected each in one record, found {missing.size} in none (first: output "
            f"{missing[0]})"
        )
    return found, scores


def write_predictions(path: Path, found: Predictions) -> None:
    """Arrow IPC file: n_id i8, label i4 (the most probable class), probabilities
    fixed_size_list<f4>[C]; by n_id.
    """
    import pyarrow as pa

    order = np.argsort(found.n_id, kind="stable")
    probabilities = np.ascontiguousarray(found.probabilities[order])
    classes = probabilities.shape[1]
    batch = pa.record_batch(
        {
            "n_id": pa.array(found.n_id[order]),
            "label": pa.array(probabilities.argmax(1).astype(np.int32)),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(probabilities.reshape(-1)), classes
            ),
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
