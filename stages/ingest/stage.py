"""Describes `ingest`: a data set file becomes one checked graph artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stages.ingest.dataset import DataSet
    from stages.ingest.features import SparseRows
    from stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE", "Params"]

_BASE_BYTES = 160 << 20  # numba and scipy, and the kernels as they are compiled: measured 80 to 126 MB
_OVERSAMPLE = 16


@dataclass(frozen=True)
class Params:
    """`undirected`: edges count both ways; `reduce`: dimensions of the truncated SVD of the features, 0 for none."""

    undirected: bool
    reduce: int


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the recipe's values, against the data set's counts where they are known."""
    reduce, source = values["features.reduce"], facts.get("source") or {}
    if reduce < 0:
        raise BadInput(f"features.reduce: expected 0 (off) or a number of dimensions, found {reduce}")
    if reduce and source.get("num_features"):
        _check_reduce(reduce, int(source["num_nodes"]), int(source["num_features"]))
    return Params(bool(values["graph.undirected"]), int(reduce))


def _check_reduce(reduce: int, nodes: int, columns: int) -> None:
    if reduce > min(nodes, columns):
        raise BadInput(
            f"features.reduce: expected at most {min(nodes, columns)} for features of {nodes} nodes and {columns} "
            f"columns, found {reduce}",
            fix="--set features.reduce=0 keeps all columns",
        )


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """One shard: the file is read once."""
    del params, inputs
    return [Shard("all")]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Read, check and write the graph, then labels and splits, then features: never two of them in memory together."""
    del shard
    from stages.ingest.open import open_dataset

    with open_dataset(inputs["source"]) as data:
        # Small and most often wrong, so first.
        labels = _labels(data, writer)
        data.write_node_ids(writer.path)
        writer.progress(1, 4, "labels read")
        graph = _graph(params, data, writer)
        writer.progress(2, 4, "graph built")
        features = _features(params, data, writer)
    writer.progress(4, 4, "features written")
    return {"num_nodes": data.num_nodes, **graph, **labels, **features}


def _labels(data: DataSet, writer: Writer) -> dict[str, Any]:
    from stages.ingest.labels import SPLITS

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


def _graph(params: Params, data: DataSet, writer: Writer) -> dict[str, Any]:
    from stages.ingest.csr import build_csr, transpose

    blocks = list(data.edges(data.num_edges))
    block = blocks[0]
    csr = build_csr(data.num_nodes, block.source, block.target, block.weight, undirected=params.undirected)
    del blocks, block
    if len(csr.indices) == 0:
        raise data.bad("edge_index", "expected an edge between two nodes, found no edges but self-loops")
    degree = np.diff(csr.indptr)
    connected = degree > 0
    writer.array("indptr", csr.indptr)
    writer.array("indices", csr.indices)
    if csr.weight is not None:
        writer.array("weight", csr.weight)
    if not params.undirected:
        t_indptr, t_indices = transpose(csr.indptr, csr.indices)
        writer.array("t_indptr", t_indptr)
        writer.array("t_indices", t_indices)
        writer.array("out_deg", np.diff(t_indptr).astype(np.int32))
        connected |= np.diff(t_indptr) > 0
    return {
        "num_edges_stored": data.num_edges,
        "nnz": len(csr.indices),
        "self_loops_dropped": csr.self_loops_dropped,
        "duplicates_merged": csr.duplicates_merged,
        "isolated_nodes": int((~connected).sum()),
        "directed": not params.undirected,
        "weighted": csr.weight is not None,
        "max_degree": int(degree.max()),
    }


def _features(params: Params, data: DataSet, writer: Writer) -> dict[str, Any]:
    from stages.ingest.features import SparseRows

    features = data.features()
    x = None if features is None else features.rows(0, data.num_nodes)
    if params.reduce:
        x = _reduced(params, data, x, writer)
    if x is None:
        return {"features": "none", "num_features": 0, "binary": False, "x_nnz": 0}
    if isinstance(x, SparseRows):
        writer.array("x_indptr", x.indptr)
        writer.array("x_indices", x.indices)
        if x.data is not None:
            writer.array("x_data", x.data)
        return {
            "features": "sparse",
            "num_features": x.columns,
            "binary": x.data is None,
            "x_nnz": len(x.indices),
        }
    writer.array("x", x)
    nonzeros = int(np.count_nonzero(x))
    binary = not params.reduce and nonzeros == int(np.count_nonzero(x == 1))
    return {"features": "dense", "num_features": int(x.shape[1]), "binary": binary, "x_nnz": nonzeros}


def _reduced(
    params: Params, data: DataSet, x: NDArray[np.float32] | SparseRows | None, writer: Writer
) -> NDArray[np.float32]:
    from stages.ingest.svd import reduce_features

    if x is None:
        raise data.bad("x", "expected features to reduce, found none", fix="--set features.reduce=0")
    columns = x.shape[1] if isinstance(x, np.ndarray) else x.columns
    _check_reduce(params.reduce, data.num_nodes, columns)

    def progress(done: int, total: int) -> None:
        writer.progress(2 * total + done, 4 * total, "reducing features")

    return reduce_features(x, data.num_nodes, columns, params.reduce, progress)


def finish(params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    """State what was read."""
    del params, inputs, writer
    return dict(outputs["all"].facts)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes at peak, the larger of graph and features, beside 64 a node for labels, splits and pointers.

    A stored edge takes 28: 8 as read, 8 as two entries, 12 weighted (24 while int64 ids are converted). A dense feature
    takes 12 (8 as read, 4 kept), a sparse one 28; reducing adds 32 (d + 16) a column and 4 d a node.
    """
    source = facts.get("source") or {}
    nodes, edges = int(source.get("num_nodes", 0)), int(source.get("num_edges_stored", 0))
    columns, nnz = int(source.get("num_features", 0)), int(source.get("x_nnz", 0))
    sparse = source.get("features") == "sparse"
    entries = edges * 2
    features = nnz * (28 if sparse else 12)
    stored = nnz * (8 if sparse else 4) + 8 * nodes
    if params.reduce:
        features += 32 * (params.reduce + _OVERSAMPLE) * columns + 4 * params.reduce * nodes
        stored = 4 * params.reduce * nodes
    graph = 8 * nodes + 4 * entries + (0 if params.undirected else 12 * nodes)
    return Cost(
        read=12 * edges + nnz * 8 + 8 * nodes,
        written=graph + stored + 16 * nodes,
        peak=_BASE_BYTES + 64 * nodes + max(28 * edges, features),
    )


STAGE: Stage[Params] = Stage(
    name="ingest",
    version=1,
    exact=True,
    params=Params,
    roles=("source",),
    reads=("graph.undirected", "features.reduce"),
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
)
