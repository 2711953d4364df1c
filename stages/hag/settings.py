"""How a search for shared partial sums goes: which merges it takes, and by which of two methods."""

from __future__ import annotations

from dataclasses import dataclass

from stockpot.stages.errors import BadInput

__all__ = ["METHODS", "UNLIMITED", "Settings"]

UNLIMITED = 1 << 30
METHODS = ("greedy", "repair")


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes
    ----------
    min_count : rows a pair must stand in to be merged. 3: a merge of 2 saves an addition and no read.
    capacity : most merges as a share of the columns; None: all there are. A HAG's twin rows count too (`find`).
    row_limit : rows of more columns that could be shared are merged, not counted: that costs the square of a row.
    method : greedy, or repair for graphs of many long hubs: less is found, in time near linear (`stages.hag.repair`).

    Raises
    ------
    BadInput
        For values out of range.
    """

    min_count: int = 3
    capacity: float | None = None
    row_limit: int = 2048
    method: str = "greedy"

    def __post_init__(self) -> None:
        if self.capacity is not None and not self.capacity >= 0:
            raise BadInput(
                f"hag.capacity is {self.capacity}, expected a share of the nodes, 0 or more",
                fix="--set hag.capacity=auto",
            )
        if self.method not in METHODS:
            raise BadInput(f"hag search method {self.method!r}, expected {' | '.join(METHODS)}", fix="method='greedy'")
        if self.min_count < 2:
            raise BadInput(
                f"a pair must stand in 2 rows at least to be shared, min_count is {self.min_count}", fix="min_count=3"
            )

    def most(self, num_nodes: int) -> int:
        """Most aggregation nodes of a CSR with so many columns."""
        return UNLIMITED if self.capacity is None else min(UNLIMITED, int(self.capacity * num_nodes))
