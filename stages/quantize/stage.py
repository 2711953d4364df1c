"""Describes `quantize`: codes of all feature rows, readable from the artifact's facts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import BadInput
from stages.quantize.codec import Codec, describe
from stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["STAGE", "Params"]

LATER = ("sq", "pq", "rq", "bifeat-")


@dataclass(frozen=True)
class Params:
    """`codec`: a name of `stages.quantize.codec.CODECS`."""

    codec: str


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    asked, graph = str(recipe["features.codec"]), facts["graph"]
    if graph["features"] == "none" or not graph["num_features"]:
        raise BadInput(
            "dataset: expected node features, found none", fix="add x, f4[num_nodes, num_features], to the data set"
        )
    if asked in ("fp32", "fp16"):
        return Params(asked)
    if asked in ("auto", "lossless"):
        if graph["binary"]:
            return Params(_smaller(graph))
        if asked == "auto":
            return Params("fp32")
        raise BadInput(
            "features.codec lossless: expected features that are all 0 or 1, found other values",
            fix="set features.codec = 'fp32' (exact) or 'fp16'; features.reduce > 0 makes features real",
        )
    if asked.startswith(LATER):
        raise BadInput(
            f"features.codec {asked}: quantized features are not available in this version",
            fix="set features.codec to auto, fp32, fp16 or lossless",
        )
    raise BadInput(f"features.codec: expected auto, fp32, fp16 or lossless, found {asked}")


def _bytes(codec: Codec, graph: Facts) -> int:
    if codec.row_bytes is not None:
        return int(graph["num_nodes"]) * codec.row_bytes
    return int(graph["x_nnz"]) * int(codec.index_bytes or 0) + 8 * (int(graph["num_nodes"]) + 1)


def _smaller(graph: Facts) -> str:
    # Rows of one length win a tie: they need no row pointer when they are read.
    return min(
        ("lossless-bits", "lossless-sparse"), key=lambda name: _bytes(describe(name, int(graph["num_features"])), graph)
    )


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    del params
    return [Shard("codes", 0, int(inputs["graph"].facts["num_nodes"]))]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stages.quantize.encode import Features, encode

    del shard
    graph = inputs["graph"]
    codec = describe(params.codec, int(graph.facts["num_features"]))
    if graph.facts["features"] == "dense":
        features = Features(codec.num_features, graph.array("x"))
    else:
        data = graph.array("x_data") if graph.has("x_data") else None
        features = Features(codec.num_features, None, graph.array("x_indptr"), graph.array("x_indices"), data)
    codes, code_indptr, nmse = encode(codec, features)
    if code_indptr is not None:
        writer.array("code_indptr", code_indptr)
    writer.array("codes", codes)
    stored = codes.size + (0 if code_indptr is None else code_indptr.nbytes)
    return {
        "codec": codec.name,
        "description": codec.to_json(),
        "row_bytes": codec.row_bytes,
        "table_bytes": 0,
        "code_bytes": int(stored),
        "compression_ratio": 4.0 * features.num_rows * codec.num_features / max(1, stored),
        "nmse": nmse,
        "nmse_aggregated": None if nmse else 0.0,
        "num_nodes": features.num_rows,
        "num_features": codec.num_features,
    }


def _finish(params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    del params, inputs, writer
    return dict(shards["codes"].facts)


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    graph = facts["graph"]
    nodes, columns, nnz = int(graph["num_nodes"]), int(graph["num_features"]), int(graph["x_nnz"])
    read = 4 * nodes * columns if graph["features"] == "dense" else 8 * nnz + 8 * (nodes + 1)
    written = _bytes(describe(params.codec, columns), graph)
    # Dense fp32 is the mapped input itself; all else is built whole, beside one dense chunk and the column ids.
    built = 0 if params.codec == "fp32" and graph["features"] == "dense" else written
    ids = 12 * nnz if params.codec.startswith("lossless") else 0
    return Cost(read, written, built + ids + (96 << 20))


STAGE = Stage(
    name="quantize",
    version=1,
    exact=True,
    params=Params,
    roles=("graph",),
    reads=("features.codec",),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
)
