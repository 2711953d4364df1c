"""Describes `propagate`: features multiplied by a matrix of the graph, hop by hop; exact.

A task takes some columns of the features through all hops, so that two arrays of N rows and as
many columns are all that is in memory, whatever the number of columns. Each product is stored once,
as it is computed; who reads rows puts the columns side by side, the graph's own first
(`stockpot.stages.codec.feature_blocks.Features.of`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.feature_columns import hop_name, slab_starts
from stockpot.stages.errors import BadInput
from stockpot.stages.propagate.planning import PLANNING, product_facts
from stockpot.stages.propagate.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["STAGE", "Params"]

_SLAB_BYTES = 1 << 30
"""Of the columns that are in memory at a time, in one of two arrays; never fewer than a cache line
of a row, as long as that is `_MOST_BYTES` at most."""
_MOST_BYTES = 4 << 30
_LINE = 16
"""Columns of float32 in a cache line: the least that reading a neighbour's row costs."""


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    hops : K, how often the features are multiplied.
    adj : the matrix M, as the model reads it: "mean" over in-neighbours, or "norm".
    normalization, self_loops : of "norm"; "none" and False for "mean".
    columns : of a task.
    """

    hops: int
    adj: str
    normalization: str
    self_loops: bool
    columns: int


def columns_at_once(nodes: int, columns: int) -> int:
    """Columns of a task: all that `_SLAB_BYTES` hold, in whole cache lines where there are several
    tasks; by counts alone, as it is part of the key.
    """
    row = 4 * max(1, nodes)
    if columns * row <= _SLAB_BYTES:
        return max(1, columns)
    lines = _SLAB_BYTES // row // _LINE * _LINE
    return min(columns, lines or max(1, min(_LINE, _MOST_BYTES // row)))


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    graph = facts["graph"]
    if graph["features"] == "none" or not graph["num_features"]:
        raise BadInput(
            "features.propagate: expected node features, found none",
            fix="add x, f4[num_nodes, num_features], to the data set",
        )
    # A model that reads normalised values gets its own matrix; all others, and a model of one's
    # own that reads a pattern, the mean over neighbours.
    normalised = recipe["train.model"] == "gcn"
    return Params(
        int(recipe["features.propagate"]),
        "norm" if normalised else "mean",
        str(recipe["graph.normalization"]) if normalised else "none",
        bool(recipe["graph.self_loops"]) if normalised else False,
        columns_at_once(int(graph["num_nodes"]), int(graph["num_features"])),
    )


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    total = int(inputs["graph"].facts["num_features"])
    return [
        Shard(f"columns-{start:05d}", start, min(start + params.columns, total))
        for start in slab_starts(total, params.columns)
    ]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.pack.layers import Weights
    from stockpot.stages.propagate.hops import Propagation

    graph = inputs["graph"]
    features = Features.from_reader(graph)
    x = np.empty((features.num_rows, shard.stop - shard.start), np.float32)
    for first, block in features.chunks():
        features.check(block, first)
        x[first : first + len(block)] = block[:, shard.start : shard.stop]
    how = Weights(params.adj, params.normalization, "none", params.self_loops)
    weight = graph.array("weight") if graph.has("weight") else None
    matrix = Propagation(how, graph.array("indptr"), graph.array("indices"), weight)

    def done(hop: int, product: NDArray[np.float32]) -> None:
        _check(product, hop, shard.start)
        stored = writer.create(hop_name(hop, shard.start), product.shape, np.float32)
        stored[:] = product
        writer.progress(hop, params.hops, "hops")

    matrix.hops(x, params.hops, writer.threads, done)
    return {}


def _check(product: NDArray[np.float32], hop: int, column: int) -> None:
    """Refuse sums that are beyond float32, by row and column."""
    import numpy as np

    for first in range(0, len(product), 65_536):
        block = product[first : first + 65_536]
        if np.isfinite(block).all():
            continue
        row, at = divmod(int(np.flatnonzero(~np.isfinite(block).reshape(-1))[0]), block.shape[1])
        raise BadInput(
            f"features.propagate: expected products within float32, found {block[row, at]} "
            f"after hop {hop} at node {first + row}, column {column + at}",
            fix="scale the features, or --set features.propagate=0",
        )


def _finish(
    params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    graph = inputs["graph"].facts
    return product_facts(params, int(graph["num_nodes"]), int(graph["num_features"]))


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a node costs 8 for each column of a task and 24, an edge what is read of it (mapped).

    The graph is read once a hop and task, the features once a task.
    """
    graph = facts["graph"]
    nodes, columns, nnz = int(graph["num_nodes"]), int(graph["num_features"]), int(graph["nnz"])
    tasks = len(slab_starts(columns, params.columns))
    edges = 8 * nodes + (8 if graph.get("weighted") else 4) * nnz
    own = 4 * nodes * columns if graph["features"] == "dense" else 8 * int(graph["x_nnz"])
    written = 4 * nodes * columns * params.hops
    held = nodes * (8 * params.columns + 24)
    return Cost(
        tasks * (own + params.hops * edges),
        written,
        held + (96 << 20),
        mend="--set features.propagate=0",
    )


STAGE = Stage(
    name="propagate",
    version=1,
    exact=True,
    params=Params,
    roles=("graph",),
    reads=(
        "features.propagate",
        "train.model",
        "graph.normalization",
        "graph.self_loops",
    ),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
