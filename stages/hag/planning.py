"""What hag takes from a recipe: section `hag`, and a node for the records and one for the graph."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.recipe_key import Auto, key
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.sample.limits import METHODS as SAMPLED
from stockpot.stages.stage import Planning
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values
    from stockpot.stages.stage import Facts

__all__ = ["KEPT_BYTES", "PLANNING", "Sharing", "kept_bytes", "sharing_of"]


@dataclass(frozen=True)
class Hag:
    enabled: Literal["auto", "always", "never"] | bool = key(
        "auto",
        "auto | always | never: share partial sums in records; auto where it is predicted to gain "
        "1.2 x",
    )
    capacity: int | float | Auto = key(
        "auto",
        "most shared sums, as a share of a record's nodes; auto: all that pay",
        Range(0, 1000),
    )


def enabled(value: Any) -> str:
    """`hag.enabled` as auto, always or never; true and false mean the last two."""
    return (
        {True: "always", False: "never"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def unshared(values: Values) -> str:
    """Why no product of the recipe can be shared by a HAG; empty where it can."""
    if values["batches.method"] in SAMPLED:
        return f"batches.method {values['batches.method']!r}: sampled rows are weighted one by one"
    if values["batches.method"] == "propagate":
        return "batches.method 'propagate': its records have no edges"
    model = values["train.model"]
    reasons = {
        **dict.fromkeys(ROW_MODELS, "it reads no edge"),
        "gat": "its weights differ by edge",
        "sage-lstm": "it reads neighbours in order, and steps through prefixes that rows share in "
        "any case",
    }
    why = (
        "it is called with the edges, which it may weigh or drop"
        if ":" in model
        else reasons.get(model)
    )
    return f"train.model {model!r}: {why}" if why else ""


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    """Of the records where they may gain; of the graph only where asked for: one pass does not
    repay the search.
    """
    asked, why = enabled(values["hag.enabled"]), unshared(values)
    if asked == "always" and why:
        raise BadInput(
            f"hag.enabled: shared partial sums cannot serve {why}", fix="--set hag.enabled=auto"
        )
    if asked == "never" or why:
        return
    yield node("hag", {"graph": "ingest", "records": "influence:train"}, of="records")
    if asked == "always" and values["infer.full_graph"]:
        yield node("hag:graph", {"graph": "ingest"}, of="graph")


def _guess(known: Known) -> Guess | None:
    asked = known.param("mode", "auto") == "always"
    return Guess(
        {
            "use": False,
            "of": known.values["of"],
            "why": "asked for" if asked else "not looked at yet",
        }
    )


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
    rates : of `stockpot.stages.hag.product_cost.Rates`, nanoseconds, as measured when it was
        decided.
    row_bytes : widths of the products whose gain counts.
    """

    on: bool = False
    loops: bool = False
    capacity: float = -1.0
    least: float = 0.0
    rates: tuple[float, ...] = ()
    row_bytes: tuple[int, ...] = ()


def kept_bytes(packed: Facts, layers: int) -> int:
    """Most bytes of laid-out HAGs kept of a packed split: pointers of every row, entries, and
    transposes.
    """
    found = packed.get("hag")
    if not found:
        return 0
    return min(KEPT_BYTES, 2 * layers * (24 * int(packed["rows"]) + 20 * int(found["reads"])))


def sharing_of(facts: Facts | None) -> Sharing:
    """What the artifact of stage `hag` decided; off where there is none."""
    if facts is None or not facts["use"]:
        return Sharing()
    decided: dict[str, Any] = facts["sharing"]
    return Sharing(
        on=True,
        loops=bool(decided["loops"]),
        capacity=float(decided["capacity"]),
        least=float(decided["least"]),
        rates=tuple(float(rate) for rate in decided["rates"]),
        row_bytes=tuple(int(width) for width in decided["row_bytes"]),
    )


PLANNING = Planning(_nodes, {"hag": Hag}, _guess)
