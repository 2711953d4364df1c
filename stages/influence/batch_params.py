"""Parameters of influence batches, with every "auto" resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.influence.mix import balanced
from stockpot.stages.stage import added

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.stage import Facts

__all__ = [
    "PARTED",
    "READS",
    "ROWS",
    "UNMIXED",
    "Params",
    "count_of",
    "mixed",
    "most_outputs",
    "resolve",
]

READS = (
    "batches.method",
    "batches.alpha",
    "batches.eps",
    "batches.top_k",
    "batches.outputs",
    "batches.mix",
    "batches.rounds",
    "batches.aux_ratio",
    "batches.aux_mass",
    "batches.orientation",
    "graph.self_loops",
    "infer.split",
    "infer.top_k",
)
UNMIXED = ("test", "infer")
"""Splits whose records are one cluster each: nothing is learned from them, and outputs that stand
together share the most rows."""
PARTED = ("batch", "cluster")  # outputs grouped by the partition
ROWS = "propagate"
"""The method whose records are their outputs alone, without edges."""

TOP_K = 16
"""Neighbours kept for an output where nothing was measured."""
# records a training split aims at: more and smaller steps learn faster at equal rows
# (stages/README.md)
_RECORDS = 64
_LEAST_OUTPUTS, _MOST_OUTPUTS = 256, 1024
_MIX = 16  # clusters in a record, and the fewest outputs a cluster should have


@dataclass(frozen=True)
class Params:
    """Resolved parameters; what a method does not use is 0, so that it is in no key of that method.

    Attributes
    ----------
    method : node | batch | cluster | random | propagate.
    split : split the records are for.
    source : where its outputs come from: train | valid | test (the split), all (every node), nodes
        (a file of ids).
    alpha, eps, top_k, self_loops : of the PPR; top_k nodes are kept for each output.
    outputs : most outputs in a record.
    mix : clusters a record is made of; of "batch", most parts in a record (more where no other has
        room), 0: any.
    rounds : sets of records, each holding every output once.
    ratio, mass : of "batch", nodes kept for a part as a share of a part's mean size, or those that
        hold this share of the mass; one of them is 0.
    orientation : of "batch", transpose | reference.
    whole : every record holds all nodes; top_k and mix are 0 then.
    """

    method: str
    split: str
    source: str
    alpha: float
    eps: float
    top_k: int
    self_loops: bool
    outputs: int
    mix: int
    rounds: int = added(1)
    ratio: float = added(0.0)
    mass: float = added(0.0)
    orientation: str = added("")
    whole: bool = added(off=False)


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Resolve "auto": as stage `sizing` found where it looked, else from counts."""
    method, split = values["batches.method"], values["split"]
    source, top_k = split, values["batches.top_k"]
    if split == "infer":
        chosen = values["infer.split"]
        source = chosen if chosen in ("test", "all") else "nodes"
        top_k = _inferred(values["infer.top_k"], facts) or top_k
    count = count_of(source, facts)
    sized: Mapping[str, Any] = {}
    if "sizing" in facts:
        # Nodes that are none of the splits get what the test split does.
        sized = facts["sizing"]["splits"][split if split != "infer" else "test"]
    if top_k == "auto":
        top_k = sized.get("top_k", TOP_K)
    whole = top_k == "all" and method in ("node", "random")
    outputs = values["batches.outputs"]
    if outputs == "auto":
        outputs = sized.get("outputs") or most_outputs(outputs, count, split)
    outputs = int(outputs)
    mix = values["batches.mix"]
    if method == "node" and split in UNMIXED:
        mix = 1
    elif mix == "auto":
        mix = mixed(balanced(max(count, 1), outputs)[1]) if method == "node" else 0
    ppr, batch = method not in ("cluster", ROWS), method == "batch"
    mass = float(values["batches.aux_mass"])
    return Params(
        method=method,
        split=split,
        source=source,
        alpha=float(values["batches.alpha"]) if ppr else 0.0,
        eps=float(values["batches.eps"]) if ppr else 0.0,
        top_k=int(top_k) if method in ("node", "random") and not whole else 0,
        self_loops=bool(values["graph.self_loops"]) and ppr,
        outputs=outputs,
        mix=int(mix) if method in ("node", "batch") and not whole else 0,
        rounds=int(values["batches.rounds"]) if split == "train" else 1,
        ratio=float(values["batches.aux_ratio"]) if batch and mass == 0.0 else 0.0,
        mass=mass if batch else 0.0,
        orientation=values["batches.orientation"] if batch else "",
        whole=whole,
    )


def _inferred(top_k: int | str, facts: Mapping[str, Facts]) -> int:
    """Nodes kept for an output of inference; 0: as training has them, for "auto" too where there
    was nothing to judge.
    """
    if top_k != "auto":
        return int(top_k)
    return int(facts.get("reach", {}).get("top_k", 0))


def most_outputs(asked: int | str, count: int, split: str) -> int:
    """Most outputs in a record of a split of `count`; "auto" aims at as many records as learn
    fast.
    """
    if asked != "auto":
        return int(asked)
    outputs = min(max(-(-count // _RECORDS), _LEAST_OUTPUTS), _MOST_OUTPUTS)
    return outputs if split == "train" else 2 * outputs  # no backward pass


def mixed(outputs: int) -> int:
    """Clusters in a record of at most `outputs` outputs, as "auto" has them."""
    return min(max(outputs // _MIX, 1), _MIX)


def count_of(source: str, facts: Mapping[str, Facts]) -> int:
    """Outputs of the split; a file of ids, which only tasks open, counts as every node."""
    if source in ("train", "valid", "test"):
        return int(facts["split"][source])
    return int(facts["graph"]["num_nodes"])
