"""Cooperate or not: bytes over storage and interconnect and work of an epoch, predicted for both;
the faster is chosen.

Cooperating pays where what it saves on the slow link and in repeated work takes longer than what it
sends (arXiv 2310.12403, section 3; the interconnect may well be the slower link: gloo over
Ethernet).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.row_sizes import multiply_adds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.stage import Facts

__all__ = ["MODES", "Rates", "Traffic", "choice", "predicted", "widths"]

MODES = ("auto", "cooperative", "independent")
INTERCONNECT_GBS = {"cpu": 1.0, "cuda": 50.0}
"""GB/s a rank sends where a recipe says nothing: gloo on one machine or 10 Gbit/s Ethernet; NVLink,
with room below."""
WORK_PER_S = {"cpu": 2e10, "cuda": 2e13}
"""Multiply-adds a rank does in a second: a CPU core's in fp32, an accelerator's."""
_PASSES = 3  # forward, and the gradients of weights and of rows


@dataclass(frozen=True)
class Traffic:
    """Of one training epoch, over all ranks.

    Attributes
    ----------
    storage : bytes of node, edge and feature columns read. features : those of features alone.
    interconnect : bytes of rows and gradients sent. work : multiply-adds.
    """

    storage: int
    features: int
    interconnect: int
    work: int


@dataclass(frozen=True)
class Rates:
    """Bytes a second of a rank's storage and interconnect, and multiply-adds."""

    storage: float
    interconnect: float
    work: float

    @classmethod
    def of(cls, storage_gbs: float, interconnect_gbs: float, device: str) -> Rates:
        """Of a recipe; an interconnect of 0 is that of the device."""
        kind = device.partition(":")[0]
        return cls(
            1e9 * storage_gbs, 1e9 * (interconnect_gbs or INTERCONNECT_GBS[kind]), WORK_PER_S[kind]
        )


def predicted(
    exchange: Facts,
    packed: Facts,
    config: Mapping[str, Any],
    per_step: int,
    device: str = "cpu",
    *,
    bf16: bool = False,
) -> dict[str, Traffic]:
    """What both modes take in one epoch, on average where there are rounds.

    Parameters
    ----------
    exchange, packed : facts of the split's links and of its records.
    config : of the model, as for `stockpot.stages.train.model.build_model`.
    per_step : records of a step.
    bf16 : whether dense products give two bytes a value.
    """
    ranks, layers, features = (
        int(exchange["ranks"]),
        int(config["layers"]),
        int(config["num_features"]),
    )
    crossing, projects = widths(config), config["model"] == "gat"
    dims = [features, *[int(config["hidden"])] * (layers - 1), int(config["num_classes"])]
    if layers == 0:  # rows alone: what a row costs is the size of the model
        dims = [multiply_adds(config), 1]
    # Forward, and backward where there is a gradient behind it: at the first layer of what was made
    # of features.
    value = 2 if bf16 and projects else 4
    sent = [value * width * (2 if i or projects else 1) for i, width in enumerate(crossing)]
    row_bytes = exchange["row_bytes"]
    if sent and row_bytes is not None and row_bytes <= 4 * crossing[0] and device == "cpu":
        sent[0] = int(row_bytes)  # as stored
    crosses = [_at(exchange["received"], layers - 1 - i) for i in range(layers)]
    rounds = int(packed.get("rounds", 1))
    records = int(packed["records"]) // rounds
    # A step of fewer records than ranks is shared out by outputs, the last one of an epoch perhaps.
    shared = (
        (records % per_step if records % per_step < ranks else 0) / records
        if per_step >= ranks
        else 1.0
    )
    traffic = {
        name: _traffic(exchange[name], packed, dims, rounds, layers)
        for name in ("together", "alone")
    }
    both = zip(traffic["together"], traffic["alone"], strict=True)
    sums = sum(a * b for a, b in zip(sent, crosses, strict=True)) // rounds
    storage, features, work = (round(a + shared * (b - a)) for a, b in both)
    return {
        "cooperative": Traffic(
            traffic["together"][0], traffic["together"][1], sums, traffic["together"][2]
        ),
        "independent": Traffic(storage, features, 0, work),
    }


def widths(config: Mapping[str, Any]) -> list[int]:
    """Values of a row that ranks exchange at each layer: what its own part makes of the row before
    any edge.

    Attention projects first, and so does a first layer whose aggregation is stored; elsewhere a
    row crosses as it is.
    """
    layers, hidden = int(config["layers"]), int(config["hidden"])
    if layers == 0:  # no row is read by another
        return []
    if config["model"] == "gat":
        return [hidden] * (layers - 1) + [int(config["heads"]) * int(config["num_classes"])]
    first = hidden if config.get("stored") else int(config["num_features"])
    return [first] + [hidden] * (layers - 1)


def _traffic(
    reads: Facts, packed: Facts, dims: Sequence[int], rounds: int, layers: int
) -> tuple[int, int, int]:
    """(bytes read, those of features, multiply-adds) of an epoch."""
    weighted = bool(packed["weighted"])
    rows, edges, features = (_at(reads[name], layers) for name in ("rows", "edges", "features"))
    structure = (
        rows * (8 + 4 * weighted)
        + 4 * (_at(reads["rows"], layers - 1) if layers else 0)
        + edges * (4 + 4 * weighted)
    )
    work = 0
    for i, (a, b) in enumerate(pairwise(dims)):
        depth = max(0, layers - i)
        work += _PASSES * (
            _at(reads["rows"], depth) * a * b + _at(reads["edges"], depth) * min(a, b)
        )
    return (structure + features) // rounds, features // rounds, work // rounds


def _at(by_depth: Sequence[int], depth: int) -> int:
    """A count by depth; of the deepest that was counted where a model is deeper."""
    return int(by_depth[min(depth, len(by_depth) - 1)])


def choice(
    asked: str, found: dict[str, Traffic], rates: Rates, ranks: int, per_step: int
) -> dict[str, Any]:
    """The mode, why, and what was predicted of both.

    Raises
    ------
    BadInput
        There is no such mode.
    """
    if asked not in MODES:
        raise BadInput(
            f"train.exchange: expected {', '.join(MODES)}, found {asked!r}",
            fix="--set train.exchange=auto",
        )
    seconds = {}
    for mode, traffic in found.items():
        spread = float(ranks)
        if mode == "independent" and per_step >= ranks:  # ranks wait for the one with most records
            spread = per_step / -(-per_step // ranks)
        parts = (
            traffic.storage / rates.storage,
            traffic.interconnect / rates.interconnect,
            traffic.work / rates.work,
        )
        seconds[mode] = sum(parts) / spread
    mode = asked if asked != "auto" else min(found, key=lambda name: (seconds[name], name))
    other = next(name for name in found if name != mode)
    why = "train.exchange says so" if asked != "auto" else "predicted to be faster"
    mine, its = found[mode], found[other]
    return {
        "mode": mode,
        "why": f"{mode}: {why}; {_said(mine, seconds[mode])}, {other} {_said(its, seconds[other])}",
        "predicted": {
            name: {**asdict(traffic), "seconds": seconds[name]} for name, traffic in found.items()
        },
    }


def _said(traffic: Traffic, seconds: float) -> str:
    storage, sent = traffic.storage / 1e6, traffic.interconnect / 1e6
    return f"{storage:.3g} MB read and {sent:.3g} MB sent an epoch in {seconds:.3g} s"
