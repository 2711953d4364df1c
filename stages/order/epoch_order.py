"""What an order artifact says, read back: the records of any epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stockpot.stages.stage import Facts, Reader

__all__ = ["Order", "walks_tour"]


def walks_tour(facts: Facts) -> bool:
    """Whether every epoch of an order, of which these are the facts, is one closed tour, entered
    somewhere.
    """
    return facts["method"] == "label" or (
        facts["method"] == "overlap" and not facts.get("window", 0)
    )


@dataclass(frozen=True)
class Order:
    """What an order artifact says: its key, method and the arrays of that method, stacked where
    there are rounds.
    """

    key: str | None = None
    method: str = "shuffle"
    tour: NDArray[np.int32] | None = None
    distance: NDArray[np.float64] | None = None
    rounds: int = 1
    window: int = 0
    mix: int = 1

    @classmethod
    def from_reader(cls, reader: Reader, key: str | None = None) -> Order:
        """The order of an artifact of stage `order`, under its own key where none is given."""
        arrays = {
            name: reader.array(name) if reader.has(name) else None for name in ("tour", "distance")
        }
        rounds = int(reader.facts.get("rounds", 1))
        key = reader.key if key is None else key
        window, mix = int(reader.facts.get("window", 0)), int(reader.facts.get("mix", 1))
        return cls(
            key,
            str(reader.facts["method"]),
            arrays["tour"],
            arrays["distance"],
            rounds,
            window,
            mix,
        )

    def records(self, num_records: int, seed: int, epoch: int) -> NDArray[np.integer[Any]]:
        """All records of the epoch's round once, counted from its first, as the method orders them
        in this epoch.
        """
        from stockpot.stages.order.epoch import epoch_order

        tour, distance = self.tour, self.distance
        if self.rounds > 1:
            tour, distance = (
                None if a is None else a[epoch % self.rounds] for a in (tour, distance)
            )
        shape = self.rounds, self.window, self.mix
        return epoch_order(self.method, tour, distance, num_records, seed, epoch, *shape)
