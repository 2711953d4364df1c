"""What `pack` is told about shared partial sums: resolved from the artifact of stage `hag`, part of `pack`'s key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.stages.stage import Facts

__all__ = ["KEPT_BYTES", "Sharing", "kept_bytes", "sharing_of"]

KEPT_BYTES = 256 << 20
"""Most bytes of laid-out HAGs that a loader keeps from epoch to epoch."""


@dataclass(frozen=True)
class Sharing:
    """How HAGs of records are searched; off by default.

    Attributes
    ----------
    on : whether records get one where it pays.
    loops : the CSR searched has the diagonal, as the models' matrices have.
    capacity : most aggregation nodes as a share of a record's nodes; -1: as many as pay.
    least : predicted gain from which a record keeps its HAG; 0: always.
    rates : of `stockpot.stages.hag.cost.Rates`, nanoseconds, as measured when it was decided.
    row_bytes : widths of the products whose gain counts.
    """

    on: bool = False
    loops: bool = False
    capacity: float = -1.0
    least: float = 0.0
    rates: tuple[float, ...] = ()
    row_bytes: tuple[int, ...] = ()


def kept_bytes(packed: Facts, layers: int) -> int:
    """Most bytes of laid-out HAGs kept of a packed split: pointers of every row, entries, and transposes."""
    found = packed.get("hag")
    if not found:
        return 0
    return min(KEPT_BYTES, 2 * layers * (24 * int(packed["rows"]) + 20 * int(found["reads"])))


def sharing_of(facts: Facts | None) -> Sharing:
    """What the artifact of stage `hag` decided; off where there is none."""
    if facts is None or not facts["use"]:
        return Sharing()
    made: dict[str, Any] = facts["sharing"]
    return Sharing(
        on=True,
        loops=bool(made["loops"]),
        capacity=float(made["capacity"]),
        least=float(made["least"]),
        rates=tuple(float(rate) for rate in made["rates"]),
        row_bytes=tuple(int(width) for width in made["row_bytes"]),
    )
