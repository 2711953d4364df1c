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
from stockpot.stages.propagate.multiplier import columns_at_once, matrix_of
from stockpot.stages.propagate.planning import PLANNING, product_facts
from stockpot.stages.propagate.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["STAGE", "Params"]


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    hops : K, how often the features are multiplied.
    adj : the matrix M, as the model reads it: "mean" over in-neighbours, or "norm".
    normalization, self_loops : of "norm"; "none" and False for "mean".
    columns : of a task.
    alpha : above 0: the share of x in each product, which are the iterates of personalised PageRank
        Z_h = (1 - alpha) M Z_(h-1) + alpha x (arXiv 1810.05997, equation 5). 0: powers of M.
    """

    hops: int
    adj: str
    normalization: str
    self_loops: bool
    columns: int
    alpha: float = added(0.0)


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params | None:
    """None where nothing is multiplied: the judge of "auto" took no hop, or nobody judged."""
    asked, graph = recipe["features.propagate"], facts["graph"]
    if asked == "auto":
        hops = int(facts["hops"]["hops"]) if "hops" in facts else 0
        if not hops:
            return None
    else:
        hops = int(asked)
    if graph["features"] == "none" or not graph["num_features"]:
        raise BadInput(
            "features.propagate: expected node features, found none",
            fix="add x, f4[num_nodes, num_features], to the data set",
        )
    columns = columns_at_once(int(graph["num_nodes"]), int(graph["num_features"]))
    return Params(hops, **matrix_of(recipe), columns=columns)


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    total = int(inputs["graph"].facts["num_features"])
    return [
        Shard(f"columns-{start:05d}", start, min(start + params.columns, total))
        for start in slab_starts(total, params.columns)
    ]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.propagate.products import multiply

    def done(hop: int, product: NDArray[np.float32]) -> None:
        stored = writer.create(hop_name(hop, shard.start), product.shape, np.float32)
        stored[:] = product
        writer.progress(hop, params.hops, "hops")

    start, stop = shard.start, shard.stop
    multiply(params, inputs["graph"], start, stop, writer.threads, done, params.alpha)
    return {}


def _finish(
    params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    graph = inputs["graph"].facts
    return product_facts(params, int(graph["num_nodes"]), int(graph["num_features"]))


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a node costs 8 for each column of a task, 12 where x is read at every hop, and 24; an
    edge what is read of it (mapped).

    The graph is read once a hop and task, the features once a task.
    """
    graph = facts["graph"]
    nodes, columns, nnz = int(graph["num_nodes"]), int(graph["num_features"]), int(graph["nnz"])
    tasks = len(slab_starts(columns, params.columns))
    edges = 8 * nodes + (8 if graph.get("weighted") else 4) * nnz
    own = 4 * nodes * columns if graph["features"] == "dense" else 8 * int(graph["x_nnz"])
    written = 4 * nodes * columns * params.hops
    held = nodes * ((12 if params.alpha else 8) * params.columns + 24)
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
        "features.propagate_by",
        "batches.alpha",
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
