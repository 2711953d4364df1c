"""A `synthetic:` source is its parameters: equal parameters, in any spelling, are one data set with
one digest.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.source import Source, parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "Communities", "counts", "describe"]

GENERATOR = 1
"""Version of the generator; it goes up where the same parameters would give other bytes."""

NAMES = ("communities",)
DEFAULTS: dict[str, Any] = {
    "nodes": 10_000,
    "edges": 100_000,
    "communities": 0,
    "classes": 16,
    "features": 64,
    "inside": 0.8,
    "hubs": 1,
    "noise": 4.0,
    "mislabelled": 0.05,
    "labelled": 1.0,
    "train": 0.5,
    "valid": 0.25,
    "seed": 0,
}
_COMMUNITY_NODES = 1000
_RANGES: dict[str, tuple[float, float]] = {
    "nodes": (10, 2**31 - 1),
    "edges": (1_000, 10**10),
    "classes": (2, 1 << 16),
    "features": (0, 1 << 16),
    "inside": (0.0, 1.0),
    "hubs": (0, 3),
    "noise": (0.0, 1000.0),
    "mislabelled": (0.0, 1.0),
    "labelled": (0.0, 1.0),
    "train": (0.0, 1.0),
    "valid": (0.0, 1.0),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Communities:
    """Planted communities of equal size.

    Attributes
    ----------
    nodes, edges : counts; edges are stored edges: repeats among them merge at ingest, self-loops do
        not occur.
    communities : node i of a seeded order belongs to community i mod `communities`; 0 in a source
        means about 1,000 nodes each. Their classes are dealt in turn: class = community mod
        `classes`.
    classes, features : numbers of classes and of feature columns; 0 features for none.
    inside : share of edges that stay in their community (a share 1 / communities of the others does
        so by chance).
    hubs : expected degrees follow a power law of exponent 2 + 1 / hubs (3, 2.5, 2.33); 0 for equal
        ones.
    noise : standard deviation of features around their class's centroid, whose own entries have
        deviation 1.
    mislabelled : share of nodes whose label is drawn anew, from all classes alike.
    labelled : share of nodes with a label; `train` and `valid` are shares of these, the rest is
        test.
    seed : of everything.
    """

    nodes: int
    edges: int
    communities: int
    classes: int
    features: int
    inside: float
    hubs: int
    noise: float
    mislabelled: float
    labelled: float
    train: float
    valid: float
    seed: int

    @property
    def canonical(self) -> str:
        """All parameters in one spelling."""
        values = "&".join(f"{name}={value!r}" for name, value in asdict(self).items())
        return f"communities-{GENERATOR}?{values}"

    @property
    def splits(self) -> dict[str, int]:
        """Nodes of train, valid and test, each at least one."""
        labelled = max(3, round(self.labelled * self.nodes))
        train = min(max(1, round(self.train * labelled)), labelled - 2)
        valid = min(max(1, round(self.valid * labelled)), labelled - train - 1)
        return {"train": train, "valid": valid, "test": labelled - train - valid}


def parse(source: str, name: str) -> Communities:
    """Parameters of `NAME?option=value&...`.

    Raises
    ------
    BadInput
        The name or an option is unknown, or a value is out of its range.
    """
    family, _, options = name.partition("?")
    if family not in NAMES:
        nearest = difflib.get_close_matches(family, NAMES, n=1, cutoff=0.0)[0]
        raise BadInput(
            f"dataset.source {source}: unknown synthetic data set {family!r}, nearest is {nearest}",
            fix=f"set dataset.source to synthetic:{nearest} or "
            f"synthetic:{nearest}?nodes=1e5&edges=1e6",
        )
    values = parse_options(source, options, DEFAULTS)
    for option, (low, high) in _RANGES.items():
        if not low <= values[option] <= high:
            raise BadInput(
                f"dataset.source {source}: {option}: expected {low} to {high}, found "
                f"{values[option]}",
                fix=f"correct {option} in dataset.source",
            )
    most = values["nodes"] // 2
    if not values["communities"]:
        rounds = round(values["nodes"] / (_COMMUNITY_NODES * values["classes"]))
        values["communities"] = min(max(1, rounds) * values["classes"], most)
    if not values["classes"] <= values["communities"] <= most:
        raise BadInput(
            f"dataset.source {source}: communities: expected {values['classes']} (classes) to "
            f"{most} (half the nodes), "
            f"found {values['communities']}",
            fix="correct nodes, classes or communities in dataset.source",
        )
    if values["train"] + values["valid"] >= 1:
        raise BadInput(
            f"dataset.source {source}: train, valid: expected shares below 1 together, so that "
            f"some are left to test, "
            f"found {values['train']} + {values['valid']}",
            fix="correct train or valid in dataset.source",
        )
    return Communities(**values)


def describe(source: str, rest: str) -> Source:
    """The source of `synthetic:REST`, with no files."""
    return Source(source, "synthetic", name=parse(source, rest).canonical)


def counts(source: Source) -> Mapping[str, Any]:
    """Exact counts, from the parameters."""
    made = parse(source.text, source.text.partition(":")[2])
    return {
        "num_nodes": made.nodes,
        "num_edges_stored": made.edges,
        "num_classes": made.classes,
        "labelled": sum(made.splits.values()),
        "splits": made.splits,
        "published_splits": 1,
        "weighted": False,
        "features": "dense" if made.features else "none",
        "num_features": made.features,
        "x_nnz": made.nodes * made.features,
        "binary": False,
    }
