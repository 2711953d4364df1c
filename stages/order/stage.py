"""Order as a stage: how the training records differ in labels, or share rows, and a tour; never
rewrites records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.order.bounds import ENTRIES
from stockpot.stages.order.planning import PLANNING
from stockpot.stages.order.reporting import REPORTING
from stockpot.stages.stage import Cost, Shard, Stage, added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

DISTANCES = ("label", "sample")


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    method : as of `stockpot.stages.order.epoch.epoch_order`.
    window, mix : of "overlap": records that stay together, and how many such runs are walked side
        by side.
    """

    method: str
    window: int = added(0)
    mix: int = added(1)


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """The method, and where it is "overlap" its window and mix."""
    if (method := values["order.method"]) != "overlap":
        return Params(method)
    return Params(method, int(values["order.window"]), int(values["order.mix"]))


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Histograms; distances where labels count; the tour where there is one. Each round by
    itself.
    """
    from stockpot.stages.order.distance import distances, histograms
    from stockpot.stages.order.tour import longest_tour, random_length, tour_length

    records, graph = inputs["records"], inputs["graph"]
    labels = np.asarray(graph.array("y"))[np.asarray(records.array("outputs"))]
    shares = histograms(
        labels, np.asarray(records.array("out_ptr")), max(1, int(graph.facts["num_classes"]))
    )
    writer.array("histogram", shares)
    rounds = int(records.facts.get("rounds", 1))
    facts: dict[str, Any] = {"method": params.method, "records": len(shares)}
    facts |= {"tour_length": None, "random_length": None}
    if rounds > 1:
        facts["rounds"] = rounds
    if params.method == "overlap":
        writer.array("tour", _overlapping(params, records, rounds, facts))
    if params.method not in DISTANCES:
        return facts
    distance = np.stack([distances(part) for part in np.split(shares, rounds)])
    writer.array("distance", distance if rounds > 1 else distance[0])
    facts["random_length"] = _mean([random_length(part) for part in distance])
    if params.method == "label":
        tour = np.stack([longest_tour(part) for part in distance])
        writer.array("tour", tour if rounds > 1 else tour[0])
        facts["tour_length"] = _mean(
            [tour_length(*pair) for pair in zip(tour, distance, strict=True)]
        )
    return facts


def _overlapping(
    params: Params, records: Reader, rounds: int, facts: dict[str, Any]
) -> NDArray[np.int32]:
    """The chain of each round, i4[R] or i4[rounds, R]; facts on it are added."""
    from stockpot.stages.order.overlap import overlap_chain
    from stockpot.stages.sample.reuse import overlap

    n_id, n_ptr = np.asarray(records.array("n_id")), np.asarray(records.array("n_ptr"))
    count = (len(n_ptr) - 1) // rounds
    chains, names, shared = [], [], []
    for r in range(rounds):
        ptr = n_ptr[r * count : (r + 1) * count + 1]
        chain, name = overlap_chain(n_id, ptr)
        chains.append(chain)
        names.append(name)
        shared.append(overlap(n_id, ptr, int(records.facts["num_nodes"]), chain))
    facts["chain"] = ", ".join(dict.fromkeys(names))
    facts["overlap"] = None if None in shared else _mean([one for one in shared if one is not None])
    facts |= {"window": params.window, "mix": params.mix}
    return np.stack(chains) if rounds > 1 else chains[0]


def _mean(lengths: Sequence[float]) -> float:
    """Mean over the rounds."""
    return round(sum(lengths) / len(lengths), 9)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: 16 a pair of records of a round and 16 a record and class; 16 an output and 4 a node
    are read.

    Overlap instead of pairs: a row is read, and costs 56 where it is counted; 20 a node. 64 MiB to
    compile.
    """
    records, classes = int(facts["records"]["records"]), int(facts["graph"]["num_classes"])
    rounds = int(facts["records"].get("rounds", 1))
    read = 12 * rounds * int(facts["records"]["outputs"]) + 4 * int(facts["graph"]["num_nodes"])
    written = (
        8 * records * classes
        + (8 * records**2 // rounds if params.method in DISTANCES else 0)
        + (4 * records if params.method in ("label", "overlap") else 0)
    )
    peak = (64 << 20) + read + 3 * written
    if params.method == "overlap":
        rows = int(facts["records"]["rows"])
        read += 4 * rows
        peak += (
            56 * min(ENTRIES, rows // rounds) + 20 * int(facts["graph"]["num_nodes"]) + 8 * records
        )
    return Cost(read=read, written=written, peak=peak)


STAGE: Stage[Params] = Stage(
    name="order",
    version=1,
    exact=True,
    params=Params,
    roles=("records", "graph"),
    reads=("order.method", "order.window", "order.mix"),
    resolve=resolve,
    run=run,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
