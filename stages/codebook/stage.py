"""Describes `codebook`: what a lossy codec encodes with, fitted out of core; recorded, as machines may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.codebook.rate_sizes import ladder, rate_bytes
from stages.errors import BadInput
from stages.quantize.codec import EXACT
from stages.quantize.names import parse
from stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["STAGE", "Params", "sample_size"]

SHARD_ROWS = 1 << 20
_SAMPLE_ROWS = 131_072
_SAMPLE_BYTES = 256 << 20
_LEAST_ROWS = 4096
_SEED = 0


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    codec : a lossy codec's name; empty where one of `candidates` is chosen.
    sample : most rows it is trained on.
    seed : of the samples and of training.
    candidates : codecs compared, each family from its most bytes to its fewest; the first is exact.
    max_drop : share of accuracy the chosen one may cost.
    """

    codec: str
    sample: int
    seed: int
    candidates: tuple[str, ...] = added(())
    max_drop: float = added(0.0)


def sample_size(num_features: int) -> int:
    """Most rows of a sample: 131,072, fewer of wide rows."""
    return max(_LEAST_ROWS, min(_SAMPLE_ROWS, _SAMPLE_BYTES // (4 * max(1, num_features))))


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    codec, graph = str(recipe["features.codec"]), facts["graph"]
    if graph["features"] == "none" or not graph["num_features"]:
        raise BadInput(
            "dataset: expected node features, found none", fix="add x, f4[num_nodes, num_features], to the data set"
        )
    columns, rows = int(graph["num_features"]), int(graph["num_nodes"])
    if codec == "auto":
        return _auto(recipe, graph)
    kind = parse(codec)
    kind.row_bytes(columns)
    if kind.family == "bifeat-vq" and kind.entries > rows:
        raise BadInput(
            f"features.codec {codec}: expected at least as many nodes as entries, found {rows} nodes",
            fix=f"--set features.codec=bifeat-vq{kind.width}-{min(256, rows)}",
        )
    return Params(codec, sample_size(columns), _SEED)


def _auto(recipe: Mapping[str, Any], graph: Facts) -> Params:
    """Binary features are coded without loss: nothing is compared, and no row is sampled."""
    max_drop = float(recipe["features.max_accuracy_drop"])
    if not 0 <= max_drop <= 1:
        raise BadInput(f"features.max_accuracy_drop: expected a share from 0 to 1, found {max_drop}")
    if graph["binary"]:
        return Params("lossless", 0, _SEED)
    columns = int(graph["num_features"])
    return Params("", sample_size(columns), _SEED, ladder(int(graph["num_nodes"]), columns), max_drop)


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    rows = int(inputs["graph"].facts["num_nodes"])
    if params.codec == "lossless":
        return [Shard("none")]
    return [
        Shard(f"rows-{start // SHARD_ROWS:05d}", start, min(start + SHARD_ROWS, rows))
        for start in range(0, rows, SHARD_ROWS)
    ]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Sum, least and largest of each column, and this span's rows of the sample."""
    if params.codec == "lossless":
        return {}
    import numpy as np

    from stages.codebook.sample import CHUNK_ROWS, sample_rows
    from stages.quantize.features import Features

    graph = inputs["graph"]
    features = Features.from_reader(graph)
    degree = np.diff(graph.array("indptr"))
    columns = features.num_features
    total, low, high = np.zeros(columns), np.full(columns, np.inf), np.full(columns, -np.inf)
    sample = []
    for start in range(shard.start, shard.stop, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, shard.stop)
        rows = sample_rows(degree[start:stop], start, features.num_rows, params.sample, params.seed)
        for first, block in features.chunks(start, stop):
            features.check(block, first)
            total += block.sum(0, dtype=np.float64)
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
            mine = rows[(rows >= first) & (rows < first + len(block))]
            sample.append(block[mine - first])
        writer.progress(stop - shard.start, shard.stop - shard.start, "statistics")
    writer.array(f"part-sample-{shard.name}", np.concatenate(sample))
    writer.array(f"part-columns-{shard.name}", np.stack([total, low, high]))
    return {"rows": shard.stop - shard.start}


def _finish(params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    graph = inputs["graph"].facts
    sizes = {"num_nodes": int(graph["num_nodes"]), "num_features": int(graph["num_features"])}
    if params.codec == "lossless":
        return {"codec": params.codec, "arrays": [], "sample": 0, **sizes}
    import numpy as np

    from stages.codebook.rate_run import rate
    from stages.quantize.coder import units

    names = sorted(shards)
    columns = np.stack([shards[name].array(f"part-columns-{name}") for name in names])
    rows = sizes["num_nodes"]
    shift = (columns[:, 0].sum(0) / rows).astype(np.float32)
    reach = np.maximum(columns[:, 2].max(0) - shift, shift - columns[:, 1].min(0))
    largest = float(np.abs(columns[:, 1:]).max())
    sample = np.concatenate([shards[name].array(f"part-sample-{name}") for name in names])
    codec, fitted, rated = rate(params, inputs, sample, shift, units(reach, rows), largest, writer.progress)
    for name, values in fitted.items():
        writer.array(name, values)
    return {"codec": codec, "arrays": sorted(fitted), "sample": len(sample), **sizes, **rated}


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    graph = facts["graph"]
    nodes, columns, nnz = int(graph["num_nodes"]), int(graph["num_features"]), int(graph["x_nnz"])
    read = 4 * nodes * columns if graph["features"] == "dense" else 8 * nnz + 8 * (nodes + 1)
    if params.codec == "lossless":
        return Cost(0, 0, 1 << 20)
    kinds = [parse(name) for name in params.candidates or [params.codec] if name not in EXACT]
    sample = 4 * columns * min(params.sample, nodes)
    # The normal equations of `rq` and their factors; the sample as read, mixed and centred, its rest and scores.
    training = max(
        kind.coder_bytes(columns) + (3 * 8 * (kind.units * kind.entries) ** 2 if kind.family == "rq" else 0)
        for kind in kinds
    )
    measuring = rate_bytes(nodes, columns, int(graph["nnz"]))
    held = 5 * sample + training + measuring + 8 * nodes
    tables = max(kind.table_bytes(columns) for kind in kinds)
    return Cost(read + 8 * nodes, tables, held + (128 << 20))


STAGE = Stage(
    name="codebook",
    version=1,
    exact=False,
    params=Params,
    roles=("graph", "split"),
    reads=("features.codec", "features.max_accuracy_drop"),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
)
