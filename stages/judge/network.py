"""Short trainings of one network on the judge's records; every row that goes through it is
counted.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from stockpot.stages.errors import StockpotError
from stockpot.stages.judge.spending import (
    BRANCH_STEPS,
    DROPOUT,
    HEADS,
    HIDDEN,
    LAYERS,
    LR,
    STEM_STEPS,
)
from stockpot.stages.pack.layers import Weights, trimmed
from stockpot.stages.step import Adj
from stockpot.stages.train.model import Model, build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.judge.sample_records import SampleRecord
    from stockpot.stages.pack.layers import Matrix

    Rows = Callable[[NDArray[np.int64]], NDArray[np.float32]]

__all__ = ["Trainee", "Trial", "network_config"]


@dataclass(frozen=True)
class Trial:
    """A record, and where its nodes stand in the sample's rows."""

    record: SampleRecord
    places: NDArray[np.int64]


def network_config(
    model: str,
    num_features: int,
    num_classes: int,
    *,
    layers: int = LAYERS,
    stored: int = 0,
    normalization: str = "sym",
    self_loops: bool = True,
) -> dict[str, Any]:
    """For `build_model`: the network that judges, one of stockpot's, of a fixed width.

    Parameters
    ----------
    layers : that read edges.
    stored : hops of the features whose last one stands for one more layer, before these; 0: none.
    normalization, self_loops : of the matrix that "gcn" reads.
    """
    return {
        "model": model,
        "num_features": num_features,
        "num_classes": num_classes,
        "hidden": HIDDEN,
        "layers": layers,
        "dropout": DROPOUT,
        "heads": HEADS,
        "normalization": normalization,
        "mass": "none",
        "self_loops": self_loops,
        "stored": stored,
    }


class Trainee:
    """A network that is trained on exact rows, and goes on from there on these or on others.

    Parameters
    ----------
    config : of `network_config`.
    train, valid : records to train on and to be asked about.
    lr : of Adam.
    what, mend : whose error it is where the loss is not finite, and what does without the network.

    Attributes
    ----------
    spent : rows of all records that went through a training step or an evaluation.
    read : those of them that the network's layers read: a network of fewer layers reads fewer hops.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        train: Sequence[Trial],
        valid: Sequence[Trial],
        seed: int,
        what: str = "judge",
        mend: str = "--set features.codec=fp32",
        lr: float = LR,
    ) -> None:
        self._what, self._mend, self._lr = what, mend, lr
        network = build_model(config, seed)
        assert isinstance(network, Model)  # one of stockpot's own
        self._model, self._seed = network, seed
        self._train, self._valid = list(train), list(valid)
        self._adam = torch.optim.Adam(network.parameters(), lr=lr)
        self._start: Any = None
        self.spent = self.read = 0

    @property
    def branch_rows(self) -> int:
        """Row-passes of a side of a pair, about."""
        mean = sum(len(t.places) for t in self._train) / len(self._train)
        return math.ceil(BRANCH_STEPS * mean) + sum(len(t.places) for t in self._valid)

    def stem(self, rows: Rows) -> None:
        """The steps that all sides start from."""
        self._steps(rows, STEM_STEPS, 0, falling=False)
        self._start = copy.deepcopy((self._model.state_dict(), self._adam.state_dict()))

    def branch(self, rows: Rows, pair: int) -> NDArray[np.bool_]:
        """Go on from the stem on `rows`; hits b1[labelled outputs of valid].

        Sides of a pair see the same records in the same order, under the same dropout.
        """
        weights, moments = copy.deepcopy(self._start)
        self._model.load_state_dict(weights)
        self._adam.load_state_dict(moments)
        self._steps(rows, BRANCH_STEPS, 1 + pair, falling=True)
        return self._hits(rows)

    def _steps(self, rows: Rows, count: int, draw: int, *, falling: bool) -> None:
        model = self._model.train()
        model.generator = torch.Generator().manual_seed(self._seed + draw)
        rng = np.random.default_rng((self._seed, draw))
        order: list[int] = []
        for step in range(count):
            if not order:
                order = rng.permutation(len(self._train)).tolist()
            trial = self._train[order.pop()]
            rate = self._lr
            if falling:
                rate *= 0.5 * (1 + math.cos(math.pi * step / count))
            for group in self._adam.param_groups:
                group["lr"] = rate
            y = torch.from_numpy(trial.record.y)
            labelled = int((y >= 0).sum())
            self.spent += len(trial.places)
            if not labelled:
                continue
            loss = functional.cross_entropy(
                self._logits(trial, rows, training=True), y, ignore_index=-1
            )
            if not math.isfinite(float(loss.detach())):
                raise StockpotError(
                    f"{self._what}: step {step}: expected a finite loss, found "
                    f"{float(loss.detach())}",
                    fix=f"scale the features, or {self._mend}",
                )
            self._adam.zero_grad(set_to_none=True)
            loss.backward()
            self._adam.step()

    @torch.no_grad()
    def _hits(self, rows: Rows) -> NDArray[np.bool_]:
        self._model.eval()
        found = []
        for trial in self._valid:
            self.spent += len(trial.places)
            predicted = self._logits(trial, rows, training=False).argmax(1).numpy()
            y = trial.record.y
            found.append((predicted == y)[y >= 0])
        return np.concatenate(found)

    def _logits(self, trial: Trial, rows: Rows, *, training: bool) -> torch.Tensor:
        record, model = trial.record, self._model
        config = model.config
        how = Weights(model.adj, config["normalization"], "none", config["self_loops"])
        matrices = trimmed(
            how,
            config["layers"],
            record.num_sampled_nodes,
            record.indptr,
            record.indices,
            record.deg,
            record.weight,
        )
        made: dict[int, Adj] = {}
        for matrix in matrices:
            if id(matrix) not in made:
                made[id(matrix)] = _adj(matrix, training=training)
        read = matrices[0].shape[1]
        self.read += read
        x = torch.from_numpy(rows(trial.places[:read]))
        return model(x, [made[id(matrix)] for matrix in matrices])


def _adj(matrix: Matrix, *, training: bool) -> Adj:
    if not training:
        return Adj(_csr(matrix))
    back, places = matrix.turned()
    return Adj(_csr(matrix), _csr(back), torch.from_numpy(places))


def _csr(matrix: Matrix) -> torch.Tensor:
    indptr, indices, values = (
        torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.values)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says once that CSR is in beta
        return torch.sparse_csr_tensor(
            indptr, indices, values, matrix.shape, check_invariants=False
        )
