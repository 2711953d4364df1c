"""Describes `ingest`: a data set file becomes one checked graph artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.planning import PLANNING
from stockpot.stages.ingest.reduction import check_reduce, features_to_reduce
from stockpot.stages.ingest.reporting import REPORTING
from stockpot.stages.stage import Cost, Shard, Stage, added

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.ingest.source_data import DataSet
    from stockpot.stages.stage import Facts, Inputs, Writer

__all__ = ["STAGE", "Params"]

_BASE_BYTES = (
    160 << 20
)  # numba and scipy, and the kernels as they are compiled: measured 80 to 126 MB
# labels, masks and ids as read; then row pointers, places and degrees; then pointers of sparse rows
_NODE_BYTES = 64
_FEATURE_BYTES = 48 << 20  # a block of rows: `sizes.BLOCK_VALUES` of at most 48 bytes
_OVERSAMPLE = 16


@dataclass(frozen=True)
class Params:
    """What a graph is read with.

    Attributes
    ----------
    undirected : edges count both ways.
    reduce : dimensions of the truncated SVD of the features, 0 for none.
    reading : what is read of the source that earlier versions passed over or read otherwise; see
        `Source.reading`.
    """

    undirected: bool
    reduce: int
    reading: str = added("")


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values, against the data set's counts where they are known."""
    reduce, source = values["features.reduce"], facts.get("source") or {}
    if reduce and source.get("num_features"):
        check_reduce(reduce, int(source["num_nodes"]), int(source["num_features"]))
    return Params(bool(values["graph.undirected"]), int(reduce), str(source.get("reading", "")))


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Read, check and write labels and splits, then the graph, then features: never two of them in
    memory together.
    """
    from stockpot.stages.ingest.graph import write_graph
    from stockpot.stages.ingest.open import open_dataset

    with open_dataset(inputs["source"]) as data:
        if left_out := list(
            dict.fromkeys([*inputs["source"].facts.get("left_out", ()), *data.left_out])
        ):
            writer.note("left_out", left_out)
        # Small and most often wrong, so first.
        labels = _labels(data, writer)
        data.write_node_ids(writer.path)
        writer.progress(1, 4, "labels read")
        room = writer.memory_bytes - _BASE_BYTES - _NODE_BYTES * data.num_nodes
        graph = write_graph(data, writer, undirected=params.undirected, room_bytes=room)
        writer.progress(2, 4, "graph built")
        features = _features(params, data, writer)
    writer.progress(4, 4, "features written")
    return {"num_nodes": data.num_nodes, **graph, **labels, **features}


def _labels(data: DataSet, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.ingest.labels import SPLITS

    y, splits = data.labels(), data.splits()
    writer.array("y", y)
    for name in SPLITS if splits else ():
        ids = [split[name] for split in splits]
        writer.array(f"split_{name}", np.concatenate(ids))
        writer.array(f"split_{name}_ptr", np.cumsum([0, *map(len, ids)], dtype=np.int64))
    return {
        "num_classes": int(y.max()) + 1,
        "unlabelled": int((y < 0).sum()),
        "published_splits": len(splits),
    }


def _features(params: Params, data: DataSet, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.ingest.table import write_features, write_reduced

    features = features_to_reduce(data, params.reduce)
    if features is None:
        return {"features": "none", "num_features": 0, "binary": False, "x_nnz": 0}
    if not params.reduce:
        return write_features(features, data.num_nodes, writer)

    def progress(done: int, total: int) -> None:
        writer.progress(2 * total + done, 4 * total, "reducing features")

    return write_reduced(features, data.num_nodes, params.reduce, writer, progress)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes at peak: 160 MiB, 64 a node (10 a published split, if that is more), and the larger of
    graph and features.

    The graph takes 25 MiB for a block of edges. With the memory it wants, 8 bytes a stored edge and
    5 an entry (two entries an edge where undirected; weighted 12 and 9); with the least, an entry's
    4 bytes (8 weighted) by 2/128. Directed graphs add a block and 2/128 of 4 bytes an entry.
    Features take 48 MiB for a block of rows, whatever their number; column-major dense ones 16 a
    value, as they are loaded whole; reducing adds 32 (d + 16) a column.

    Written beside the artifact while ingest runs, where entries do not fit in memory: 8 bytes an
    entry (weighted 12) and the rows made so far, twice 4 (8); sparse features, and those to be
    reduced, once more.
    """
    from stockpot.stages.ingest.csr_memory import least_bytes, most_bytes

    source = facts.get("source") or {}
    nodes, edges = int(source.get("num_nodes", 0)), int(source.get("num_edges_stored", 0))
    columns, nnz = int(source.get("num_features", 0)), int(source.get("x_nnz", 0))
    weighted, sparse = bool(source.get("weighted", False)), source.get("features") == "sparse"
    features = _FEATURE_BYTES if columns else 0
    if source.get("features_loaded_whole"):
        features += 16 * nnz
    stored = nnz * (8 if sparse else 4) + 8 * nodes
    if params.reduce:
        features += 32 * (params.reduce + _OVERSAMPLE) * columns
        stored = 4 * params.reduce * nodes
    entries = edges * (2 if params.undirected else 1)
    graph = (
        8 * nodes
        + entries * (8 if weighted else 4)
        + (0 if params.undirected else 12 * nodes + 4 * entries)
    )
    spare = 0 if params.undirected else least_bytes(edges, undirected=False, weighted=False)
    most = most_bytes(edges, undirected=params.undirected, weighted=weighted)
    least = least_bytes(edges, undirected=params.undirected, weighted=weighted)
    always = (
        _BASE_BYTES + max(_NODE_BYTES, 24 + 10 * int(source.get("published_splits", 0))) * nodes
    )
    return Cost(
        read=2 * (16 + (4 if weighted else 0)) * edges + nnz * 8 + 8 * nodes,
        written=graph + stored + 16 * nodes,
        peak=always + max(most + spare, features),
        least=always + max(least + spare, features),
    )


STAGE: Stage[Params] = Stage(
    name="ingest",
    version=1,
    exact=True,
    params=Params,
    roles=("source",),
    reads=("graph.undirected", "features.reduce"),
    resolve=resolve,
    run=run,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
