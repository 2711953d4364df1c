"""Describes `ingest`: a data set file becomes one checked graph artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.ingest.npz import Dataset

__all__ = ["STAGE", "Params"]

SPLITS = ("train", "valid", "test")
_OVERSAMPLE = 16


@dataclass(frozen=True)
class Params:
    """`undirected`: edges count both ways; `reduce`: dimensions of the truncated SVD of the features, 0 for none."""

    undirected: bool
    reduce: int


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    reduce = recipe["features.reduce"]
    if reduce < 0:
        raise BadInput(f"features.reduce: expected 0 (off) or a number of dimensions, found {reduce}")
    return Params(bool(recipe["graph.undirected"]), int(reduce))


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    return [Shard("graph")]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stages.ingest.csr import build_csr, transpose
    from stages.ingest.npz import read_npz

    path = inputs["source"].path("source")
    data = read_npz(path)
    writer.progress(1, 4, "read and checked")
    source, target = data.edge_index
    stored = data.edge_index.shape[1]
    csr = build_csr(data.num_nodes, source, target, data.weight, undirected=params.undirected)
    del source, target
    data.edge_index = np.empty((2, 0), np.int32)
    if len(csr.indices) == 0:
        raise BadInput(f"{path}: edge_index: expected an edge between two nodes, found only self-loops")
    writer.progress(2, 4, "graph built")
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
    writer.array("y", data.y)
    for name in SPLITS if data.splits else ():
        ids = [split[name] for split in data.splits]
        writer.array(f"split_{name}", np.concatenate(ids))
        writer.array(f"split_{name}_ptr", np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64))
    features = _features(params, data, path, writer)
    writer.progress(4, 4, "features written")
    return {
        "num_nodes": data.num_nodes,
        "num_edges_stored": stored,
        "nnz": len(csr.indices),
        "self_loops_dropped": csr.self_loops_dropped,
        "duplicates_merged": csr.duplicates_merged,
        "isolated_nodes": int((~connected).sum()),
        "num_classes": int(data.y.max()) + 1,
        "unlabelled": int((data.y < 0).sum()),
        "published_splits": len(data.splits),
        "directed": not params.undirected,
        "weighted": csr.weight is not None,
        "max_degree": int(degree.max()),
        **features,
    }


def _features(params: Params, data: Dataset, path: Any, writer: Writer) -> dict[str, Any]:
    from stages.ingest.npz import SparseRows

    x = data.x
    if x is None:
        raise BadInput(
            f"{path}: x: expected node features, found none", fix="store x, or x_data, x_indices, x_indptr and x_shape"
        )
    if params.reduce:
        from stages.ingest.svd import reduce_features

        if isinstance(x, SparseRows):
            import scipy.sparse as sp

            values = np.ones(len(x.indices), np.float32) if x.data is None else x.data
            x = sp.csr_matrix((values, x.indices, x.indptr), shape=(data.num_nodes, x.columns))
        x = reduce_features(x, params.reduce)
    if isinstance(x, SparseRows):
        writer.array("x_indptr", x.indptr)
        writer.array("x_indices", x.indices)
        if x.data is not None:
            writer.array("x_data", x.data)
        nnz, binary = len(x.indices), x.data is None
        return {"features": "sparse", "num_features": x.columns, "binary": binary, "x_nnz": nnz}
    writer.array("x", x)
    nnz = int(np.count_nonzero(x))
    binary = not params.reduce and nnz == int((x == 1).sum())
    return {"features": "dense", "num_features": int(x.shape[1]), "binary": binary, "x_nnz": nnz}


def _finish(params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    return dict(shards["graph"].facts)


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: a stored edge 24 while read, checked and built (+8 weighted), a node 40; dense features 12 a value.

    Reducing holds the features in float64 and two bases of 16 (d + 16) bytes a node.
    """
    counts = facts.get("source", {})
    nodes, edges = int(counts.get("num_nodes", 0)), int(counts.get("num_edges_stored", 0))
    dense, nnz = counts.get("features") == "dense", int(counts.get("x_nnz", 0))
    entries = edges * (2 if params.undirected else 1)
    features = (12 if dense else 24) * nnz
    reduced = nodes * (params.reduce + _OVERSAMPLE) * 32 if params.reduce else 0
    graph = 4 * entries * (1 if params.undirected else 2) + 16 * nodes
    written = graph + (4 * nodes * params.reduce if params.reduce else (4 * nnz if dense else 8 * nnz + 8 * nodes))
    return Cost(8 * edges + features // 3, written, 24 * edges + 2 * graph + 40 * nodes + features + reduced + (64 << 20))


STAGE = Stage(
    name="ingest",
    version=1,
    exact=True,
    params=Params,
    roles=("source",),
    reads=("graph.undirected", "features.reduce"),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
)
