"""Which code is taken: the fewest bytes whose accuracy is shown to fall no more than allowed, and why, in words.

Candidates come in families, each from its most bytes to its fewest. A family is tried in that order until one fails;
what stands before is allowed, what stands behind is not measured. Since the first failure ends it, all that a family
passes hold together at the confidence of a single test, however many there are (a fixed sequence of hypotheses).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Candidate", "choose"]


@dataclass(frozen=True)
class Candidate:
    """A row of the rate-distortion table.

    Attributes
    ----------
    codec : its name; `family` of codecs it stands in.
    row_bytes, table_bytes : as stored.
    total_bytes : of all rows of the graph, with the tables.
    compression_ratio : fp32 over `total_bytes`.
    nmse : error energy over centred energy, of single rows.
    nmse_by_depth : the same of the outputs after 1, 2, ... mean aggregations.
    drop, drop_error : share of validation accuracy the proxy loses, and its standard error; None where not judged.
    drop_bound : what a network may lose (`rate_proxy.Drop`); the figure that is compared with what is allowed.
    """

    codec: str
    family: str
    row_bytes: int
    table_bytes: int
    total_bytes: int
    compression_ratio: float
    nmse: float
    nmse_by_depth: tuple[float, ...]
    drop: float | None
    drop_error: float | None
    drop_bound: float | None

    @property
    def nmse_aggregated(self) -> float:
        """Mean over the depths."""
        return sum(self.nmse_by_depth) / max(1, len(self.nmse_by_depth))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "nmse_by_depth": list(self.nmse_by_depth), "nmse_aggregated": self.nmse_aggregated}


def choose(candidates: Sequence[Candidate], max_drop: float) -> tuple[Candidate, str]:
    """The candidate to take, and why no smaller one.

    Parameters
    ----------
    candidates : families from their most bytes to their fewest; the first candidate is exact.
    max_drop : share of accuracy, at least 0.

    Returns
    -------
    Of equal bytes the one with less aggregated error, then the earlier one.
    """
    taken, failed = candidates[0], dict[str, tuple[float, str]]()
    for c in candidates:
        if c.family in failed or c.drop is None or c.drop_error is None or c.drop_bound is None:
            continue
        if c.drop_bound > max_drop:
            seen = f"{100 * c.drop:.2f} ± {100 * c.drop_error:.2f}"
            failed[c.family] = (
                c.drop_bound,
                (
                    f"{c.codec} may cost {100 * c.drop_bound:.2f} points of accuracy (a linear model lost {seen}), "
                    f"allowed are {100 * max_drop:.2f}"
                ),
            )
        elif (c.total_bytes, c.nmse_aggregated) < (taken.total_bytes, taken.nmse_aggregated):
            taken = c
    return taken, "the best that fails: " + min(failed.values())[1] if failed else "no candidate is smaller"
