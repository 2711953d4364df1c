"""Goes down the ladder of codes as far as they are shown to cost little enough, and no further than
its rows carry.

Levels are judged from the most bytes to the fewest, and the first that fails ends it. So all that
pass hold together at the confidence of a single test, however many they are (a fixed sequence of
hypotheses); of the codes of a level the one of least error after aggregation is judged, which looks
at no label.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.judge.paired import Loss, loss_of, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.judge.network import Trainee
    from stockpot.stages.judge.sample_features import Coding, SampleRows

__all__ = ["Candidate", "Decision"]

_SPENT = "a tenth of the rows of the training that is served are spent"


@dataclass(frozen=True)
class Candidate:
    """A row of the table.

    Attributes
    ----------
    codec : its name. row_bytes, table_bytes : as stored. total_bytes : of all nodes, with the
        tables.
    compression_ratio : fp32 over `total_bytes`.
    nmse, nmse_aggregated : of single rows, and after one mean over neighbours in records.
    drop, drop_error, drop_bound : accuracy lost, its standard error, and what may be lost; None
        where not judged.
    pairs : trainings it was compared by.
    allowed : whether it may be taken; None where another code of its level was judged.
    """

    codec: str
    row_bytes: int
    table_bytes: int
    total_bytes: int
    compression_ratio: float
    nmse: float
    nmse_aggregated: float
    drop: float | None = None
    drop_error: float | None = None
    drop_bound: float | None = None
    pairs: int = 0
    allowed: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Decision:
    """Judges codes one by one with one network.

    Parameters
    ----------
    trainee : after its stem.
    sample : the rows it is trained on. num_nodes : of the graph.
    max_drop : share of accuracy that may be lost.
    rows : row-passes that may be spent.
    """

    def __init__(
        self,
        trainee: Trainee,
        sample: SampleRows,
        num_nodes: int,
        max_drop: float,
        rows: int,
        seed: int,
    ) -> None:
        self._trainee, self._sample, self._nodes = trainee, sample, num_nodes
        self._max_drop, self._rows, self._seed = max_drop, rows, seed
        self._exact: list[NDArray[np.bool_]] = []
        self.table: list[Candidate] = []
        self.reason = ""

    @property
    def accuracy(self) -> float | None:
        """Of the network on exact rows, mean over pairs."""
        return float(np.mean(self._exact)) if self._exact else None

    def taken(self, levels: Sequence[Sequence[str]], progress: Callable[[str], None]) -> str | None:
        """The code to take, None where no code is shown to cost little enough; `reason` says why no
        smaller one.
        """
        taken, self.reason = None, "no code of fewer bytes is known"
        for names in levels:
            if not self._affordable(0):
                self.reason = f"{names[0]} is not judged: {_SPENT}"
                break
            progress(names[0])
            codings = [self._sample.coded(name, self._seed) for name in names]
            best = min(codings, key=lambda coding: coding.nmse_aggregated)
            self.table += [self._row(coding) for coding in codings if coding is not best]
            if not self._allowed(best):
                break
            taken = best.name
        else:
            return taken
        if taken is None and self._affordable(0) and (halves := self._sample.halves()) is not None:
            return "fp16" if self._allowed(halves) else None
        return taken

    def _affordable(self, pair: int) -> bool:
        """Whether the rows that are left carry a pair: the coded side, and the exact one where it
        is not there yet.
        """
        needed = self._trainee.branch_rows * (1 + (pair == len(self._exact)))
        return self._trainee.spent + needed <= self._rows

    def _allowed(self, coding: Coding) -> bool:
        """Compare a code pair by pair until it is clear."""
        coded: list[NDArray[np.bool_]] = []
        loss, found = None, None
        while found is None:
            if not self._affordable(len(coded)):
                break
            if len(coded) == len(self._exact):
                self._exact.append(self._trainee.branch(self._sample.exact, len(coded)))
            coded.append(self._trainee.branch(coding.rows, len(coded)))
            loss = loss_of(self._exact[: len(coded)], coded)
            found = verdict(loss, self._max_drop)
        self.table.append(self._row(coding, loss, allowed=bool(found)))
        if not found:
            self.reason = self._why(coding.name, loss, spent=found is None)
        return bool(found)

    def _why(self, name: str, loss: Loss | None, *, spent: bool) -> str:
        tail = f"; {_SPENT}" if spent else ""
        assert loss is not None  # a pair was affordable
        seen = (
            f"{100 * loss.mean:.2f} ± {100 * loss.error:.2f} by {loss.pairs} "
            f"{'pair' if loss.pairs == 1 else 'pairs'}"
        )
        return (
            f"{name} may cost {100 * loss.bound:.2f} points of accuracy (lost {seen} of "
            f"trainings), allowed are "
            f"{100 * self._max_drop:.2f}{tail}"
        )

    def _row(
        self, coding: Coding, loss: Loss | None = None, *, allowed: bool | None = None
    ) -> Candidate:
        total = coding.row_bytes * self._nodes + coding.table_bytes
        return Candidate(
            codec=coding.name,
            row_bytes=coding.row_bytes,
            table_bytes=coding.table_bytes,
            total_bytes=total,
            compression_ratio=4.0 * self._nodes * self._sample.x.shape[1] / total,
            nmse=coding.nmse,
            nmse_aggregated=coding.nmse_aggregated,
            drop=None if loss is None else loss.mean,
            drop_error=None if loss is None else loss.error,
            drop_bound=None if loss is None else loss.bound,
            pairs=0 if loss is None else loss.pairs,
            allowed=allowed,
        )
