"""Every output is predicted from its own record; all models see a record before the next one is
read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.train.evaluate import Score, score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.processes.process_group import Team
    from stockpot.stages.train.model import Network

__all__ = ["ENSEMBLE", "PredictionTable", "Predictions", "predict", "write_predictions"]

ENSEMBLE = "ensemble"
"""Name of the score of the mean of all ingredients' probabilities."""


class Predictions:
    """Outputs in the order of the sorted split: `n_id` i8[O], `y` i4[O] (-1 unlabelled),
    `probabilities` f4[O, C]; and `won`, i8[2]: outputs that the chosen model alone has right, and
    those that the model it is held against has.
    """

    def __init__(self, outputs: int, classes: int) -> None:
        self.n_id: NDArray[np.int64] = np.full(outputs, -1, np.int64)
        self.y: NDArray[np.int32] = np.full(outputs, -1, np.int32)
        self.probabilities: NDArray[np.float32] = np.zeros((outputs, classes), np.float32)
        self.won: NDArray[np.int64] = np.zeros(2, np.int64)

    def gain(self) -> tuple[float, float] | None:
        """Accuracy of the chosen model less that of the other, and its standard error, paired over
        the labelled outputs; None where none has a label.
        """
        labelled = int((self.y >= 0).sum())
        if not labelled:
            return None
        mean = int(self.won[0] - self.won[1]) / labelled
        return mean, float(np.sqrt((int(self.won.sum()) / labelled - mean**2) / labelled))


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
    against: str | None = None,
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
    against : name of another one, which the chosen one is held against output by output.
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
        right: dict[str, Tensor] = {}
        for name, model in models.items():
            logits = model(step.x, step.adjs) if team is None else team.forward(model, step)
            scores[name] += score(logits, step.y)
            if name in together:
                weighed = logits.softmax(1) * together[name]
                summed = weighed if summed is None else summed + weighed
            if name in (chosen, against):
                right[name] = logits.argmax(1) == step.y
            if name == chosen:
                at = step.input_id.cpu().numpy()
                found.n_id[at] = step.n_id[: step.batch_size].cpu().numpy()
                found.y[at] = step.y.cpu().numpy()
                found.probabilities[at] = torch.softmax(logits, 1).cpu().numpy()
        if against in right:
            mine, its = right[chosen], right[against]
            found.won += [int((mine & ~its).sum()), int((its & ~mine).sum())]
        if summed is not None:
            scores[ENSEMBLE] += score(summed.log(), step.y)
        progress(i + 1, total, "records")
    if team is not None:
        found.n_id += 1  # 0 where another rank has it
        found.y += 1
        for values in (found.n_id, found.y, found.probabilities, found.won):
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


class PredictionTable:
    """Probabilities looked up in a file of `write_predictions`: `table(ids)` are f4[n, C].

    The file is mapped; O(log outputs) for each id, none of which may be of another node.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        column = self._batch.column("probabilities")
        self._n_id = self._batch.column("n_id").to_numpy()
        self._rows = column.flatten().to_numpy().reshape(-1, column.type.list_size)

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities of nodes `ids`, i8[n]."""
        at = np.searchsorted(self._n_id, ids).clip(max=len(self._n_id) - 1)
        if (missing := np.flatnonzero(self._n_id[at] != ids)).size:
            raise BadInput(
                f"predictions: expected one for node {ids[missing[0]]}, found none",
                fix="--set infer.split=all",
            )
        return np.take(self._rows, at, axis=0)
