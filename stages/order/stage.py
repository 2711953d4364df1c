"""Order as a stage: label histograms of the training records, their distances, and a tour; never rewrites records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

METHODS = ("label", "sample", "shuffle")
LATER = ("overlap",)


@dataclass(frozen=True)
class Params:
    """Resolved parameters."""

    method: str


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values."""
    del facts
    method = values["order.method"]
    if method not in METHODS:
        what = "is not available in this version" if method in LATER else "is not known"
        raise BadInput(f"order.method = {method!r} {what}; expected one of {', '.join(METHODS)}")
    if values["order.cache"] != 0:
        raise BadInput(f"order.cache = {values['order.cache']} is not available in this version; expected 0")
    return Params(method=method)


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """One shard over all records."""
    del params
    return [Shard("all", 0, int(inputs["records"].facts["records"]))]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Histograms; distances unless shuffled; the tour where the order is fixed. Both for each round by itself."""
    del shard
    from stages.order.distance import distances, histograms
    from stages.order.tour import longest_tour, random_length, tour_length

    records, graph = inputs["records"], inputs["graph"]
    labels = np.asarray(graph.array("y"))[np.asarray(records.array("outputs"))]
    shares = histograms(labels, np.asarray(records.array("out_ptr")), max(1, int(graph.facts["num_classes"])))
    writer.array("histogram", shares)
    rounds = int(records.facts.get("rounds", 1))
    facts: dict[str, Any] = {"method": params.method, "records": len(shares)}
    facts |= {"tour_length": None, "random_length": None}
    if rounds > 1:
        facts["rounds"] = rounds
    if params.method == "shuffle":
        return facts
    distance = np.stack([distances(part) for part in np.split(shares, rounds)])
    writer.array("distance", distance if rounds > 1 else distance[0])
    facts["random_length"] = _mean([random_length(part) for part in distance])
    if params.method == "label":
        tour = np.stack([longest_tour(part) for part in distance])
        writer.array("tour", tour if rounds > 1 else tour[0])
        facts["tour_length"] = _mean([tour_length(*pair) for pair in zip(tour, distance, strict=True)])
    return facts


def _mean(lengths: Sequence[float]) -> float:
    """Mean over the rounds."""
    return round(sum(lengths) / len(lengths), 9)


def finish(params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    """Facts of the one shard."""
    del params, inputs, writer
    return dict(outputs["all"].facts)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: 16 a pair of records of a round and 16 a record and class; 16 an output and 4 a node are read.

    32 MiB to compile.
    """
    records, classes = int(facts["records"]["records"]), int(facts["graph"]["num_classes"])
    rounds = int(facts["records"].get("rounds", 1))
    read = 12 * rounds * int(facts["records"]["outputs"]) + 4 * int(facts["graph"]["num_nodes"])
    written = (
        8 * records * classes
        + (0 if params.method == "shuffle" else 8 * records**2 // rounds)
        + (4 * records if params.method == "label" else 0)
    )
    return Cost(read=read, written=written, peak=(32 << 20) + read + 3 * written)


STAGE: Stage[Params] = Stage(
    name="order",
    version=1,
    exact=True,
    params=Params,
    roles=("records", "graph"),
    reads=("order.method", "order.cache"),
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
)
