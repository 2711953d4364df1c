"""Describes `split`: sorted ids of train, valid and test, disjoint and none empty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.split.planning import PLANNING
from stockpot.stages.split.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["STAGE", "Params", "checked_split", "seeded_split"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Params:
    """`origin` "published": split number `index`; "seeded": shares `train` and `valid` of the
    labelled nodes.
    """

    origin: str
    index: int
    train: float
    valid: float
    seed: int


def seeded_split(
    labels: NDArray[np.int32], train: float, valid: float, seed: int
) -> list[NDArray[np.int32]]:
    """Sorted ids of train, valid and test: a seeded permutation of the labelled nodes, cut at
    shares rounded down.

    Parameters
    ----------
    labels : i4[N], -1 where unlabelled.
    train, valid : shares of the labelled nodes, in (0, 1), their sum below 1; the rest is test.

    Returns
    -------
    Three i4 arrays, sorted, disjoint, together all labelled nodes; a part may be empty where nodes
    are few. O(N log N).
    """
    labelled = np.random.default_rng(seed).permutation(np.flatnonzero(labels >= 0))
    # 0.6 + 0.2 is a little less than 0.8: without rounding, a node would change sides.
    first, second = (
        math.floor(round(share * len(labelled), 6)) for share in (train, train + valid)
    )
    return [np.sort(ids).astype(np.int32) for ids in np.split(labelled, [first, second])]


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    published, index = int(facts["graph"]["published_splits"]), int(recipe["dataset.split_index"])
    if published:
        if index >= published:
            raise BadInput(
                f"dataset.split_index: expected 0 to {published - 1}, the published splits, found "
                f"{index}",
                fix=f"--set dataset.split_index={published - 1}",
            )
        return Params("published", index, 0.0, 0.0, 0)
    if index != 0:
        raise BadInput(
            f"dataset.split_index: expected 0, since the data set publishes no splits, found "
            f"{index}",
            fix="--set dataset.split_index=0, and --set dataset.split.seed=N for another split",
        )
    split = recipe["dataset.split"]
    train, valid, seed = split["train"], split["valid"], split["seed"]
    if train + valid >= 1:
        raise BadInput(
            f"dataset.split: expected train + valid below 1, so that test has nodes, found "
            f"{train + valid:g}",
            fix="--set dataset.split.train=0.5 --set dataset.split.valid=0.25",
        )
    return Params("seeded", 0, float(train), float(valid), int(seed))


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    graph = inputs["graph"]
    published = []
    if params.origin == "published":
        for name in SPLITS:
            ptr = graph.array(f"split_{name}_ptr")
            published.append(
                np.asarray(graph.array(f"split_{name}")[ptr[params.index] : ptr[params.index + 1]])
            )
    ids = checked_split(params, graph.array("y"), published)
    for name, values in zip(SPLITS, ids, strict=True):
        writer.array(name, values)
    return {
        **{name: len(values) for name, values in zip(SPLITS, ids, strict=True)},
        "origin": params.origin,
    }


def checked_split(
    params: Params, labels: NDArray[np.int32], published: Sequence[NDArray[np.int32]]
) -> Sequence[NDArray[np.int32]]:
    """The published parts, or seeded ones, each with a labelled node.

    Parameters
    ----------
    published : train, valid and test of split number `params.index`, where `params` says published.

    Raises
    ------
    BadInput
        A part is empty, or none of its nodes has a label.
    """
    ids = published or seeded_split(labels, params.train, params.valid, params.seed)
    for name, values in zip(SPLITS, ids, strict=True):
        if len(values) == 0:
            raise BadInput(
                f"dataset.split: {name}: expected at least one node, found an empty split of "
                f"{sum(len(v) for v in ids)} labelled nodes",
                fix="--set dataset.split.train=0.5 --set dataset.split.valid=0.25"
                if sum(map(len, ids)) > 2
                else "label at least 3 nodes in y",
            )
        if not (labels[values] >= 0).any():
            raise BadInput(
                f"split {params.index}: {name}: expected at least one labelled node, found "
                f"{len(values)} nodes without "
                f"label, the first of them node {values[0]}",
                fix="give some of these nodes a class in y; among several splits "
                "dataset.split_index chooses",
            )
    return ids


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: 4 a node read and written, 28 a node while a permutation is drawn and sorted."""
    nodes = int(facts["graph"]["num_nodes"])
    return Cost(4 * nodes, 4 * nodes, 28 * nodes)


STAGE = Stage(
    name="split",
    version=1,
    exact=True,
    params=Params,
    roles=("graph",),
    reads=("dataset.split", "dataset.split_index"),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
