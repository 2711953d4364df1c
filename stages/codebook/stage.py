"""Describes `codebook`: what a lossy codec encodes with, fitted out of core; recorded, as machines
may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.codebook.planning import PLANNING
from stockpot.stages.codebook.reporting import REPORTING
from stockpot.stages.codec.auto import judged, keeps
from stockpot.stages.codec.codec_names import parse
from stockpot.stages.codec.feature_columns import features_of
from stockpot.stages.codec.format import EXACT
from stockpot.stages.codec.rate_sizes import rate_bytes
from stockpot.stages.codec.row_blocks import BLOCK_ROWS, row_shards
from stockpot.stages.codec.tiers import tier_of
from stockpot.stages.errors import BadInput
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["STAGE", "Params", "sample_size"]

_SAMPLE_ROWS = 131_072
_SAMPLE_BYTES = 256 << 20
_LEAST_ROWS = 4096
_SEED = 0
_MOST_REACH = 1e16
"""Distance from the mean at which the squared norm of a row of a million columns is still a number
of fp32."""


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    codec : a lossy codec's name.
    sample : most rows it is trained on.
    seed : of the samples and of training.
    tier, tier_rows : residual code of the most exposed nodes, and how many these are.
    """

    codec: str
    sample: int
    seed: int
    tier: str = added("")
    tier_rows: int = added(0)


def sample_size(num_features: int) -> int:
    """Most rows of a sample: 131,072, fewer of wide rows."""
    return max(_LEAST_ROWS, min(_SAMPLE_ROWS, _SAMPLE_BYTES // (4 * max(1, num_features))))


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params | None:
    codec, graph = str(recipe["features.codec"]), features_of(facts)
    if graph["features"] == "none" or not graph["num_features"]:
        raise BadInput(
            "dataset: expected node features, found none",
            fix="add x, f4[num_nodes, num_features], to the data set",
        )
    columns, rows = int(graph["num_features"]), int(graph["num_nodes"])
    if codec == "auto":
        codec = "" if keeps(recipe, graph) else judged(facts)
        if not codec or codec in EXACT:
            return None
    kind = parse(codec)
    kind.row_bytes(columns)
    if kind.family == "bifeat-vq" and kind.entries > rows:
        raise BadInput(
            f"features.codec {codec}: expected at least as many nodes as entries, found {rows} "
            f"nodes",
            fix=f"--set features.codec=bifeat-vq{kind.width}-{min(256, rows)}",
        )
    tier, tier_rows = tier_of(recipe, rows)
    return Params(codec, sample_size(columns), _SEED, tier=tier, tier_rows=tier_rows)


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    return row_shards(int(inputs["graph"].facts["num_nodes"]))


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Sum, least and largest of each column, and this span's rows of the sample."""
    import math

    import numpy as np

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.codec.training_sample import CHUNK_ROWS, sample_rows

    graph = inputs["graph"]
    features = Features.of(inputs)
    degree = np.diff(graph.array("indptr"))
    columns = features.num_features
    low, high = np.full(columns, np.inf), np.full(columns, -np.inf)
    sample, sums = [], []
    for start in range(shard.start, shard.stop, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, shard.stop)
        rows = sample_rows(degree[start:stop], start, features.num_rows, params.sample, params.seed)
        for first, block in features.chunks(start, stop):
            features.check(block, first)
            sums += [
                block[k : k + BLOCK_ROWS].sum(0, dtype=np.float64)
                for k in range(0, len(block), BLOCK_ROWS)
            ]
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
            mine = rows[(rows >= first) & (rows < first + len(block))]
            sample.append(block[mine - first])
        writer.progress(stop - shard.start, shard.stop - shard.start, "statistics")
    writer.array(f"part-sample-{shard.name}", np.concatenate(sample))
    total = [
        math.fsum(column.tolist()) for column in np.stack(sums).T
    ]  # of whole blocks: the same for any chunks
    writer.array(f"part-columns-{shard.name}", np.stack([total, low, high]))
    return {"rows": shard.stop - shard.start}


def _finish(
    params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.codec.coder import units
    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.codec.fit import fit
    from stockpot.stages.codec.rate import measured

    features = Features.of(inputs)
    sizes = {"num_nodes": features.num_rows, "num_features": features.num_features}
    names = sorted(shards)
    columns = np.stack([shards[name].array(f"part-columns-{name}") for name in names])
    rows = sizes["num_nodes"]
    shift = (columns[:, 0].sum(0) / rows).astype(np.float32)
    reach = np.maximum(columns[:, 2].max(0) - shift, shift - columns[:, 1].min(0))
    most = np.abs(columns[:, 1:]).max((0, 1))
    _squares_fit(params.codec, reach, most)
    sample = np.concatenate([shards[name].array(f"part-sample-{name}") for name in names])
    fitted = fit(params.codec, sample, shift, params.seed) | {
        "shift": shift,
        "scale": units(reach, rows),
    }
    for name, values in fitted.items():
        writer.array(name, values)
    found = {"codec": params.codec, "arrays": sorted(fitted), "sample": len(sample), **sizes}
    found |= measured(params.codec, fitted, inputs["graph"], features, params.seed)
    return found | (
        _tier(params, inputs, writer, params.codec, fitted, sample) if params.tier else {}
    )


def _squares_fit(codec: str, reach: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
    """Refuse values whose squared distances are beyond fp32, in which entries are searched; scalar
    codes take any.
    """
    if not parse(codec).bits and reach.max() > _MOST_REACH:
        column = int(reach.argmax())
        raise BadInput(
            f"features.codec {codec}: expected values within {_MOST_REACH:g} of their mean, "
            f"found {largest[column]:g} in column {column}",
            fix="scale the features, or --set features.codec=sq8",
        )


def _tier(
    params: Params,
    inputs: Inputs,
    writer: Writer,
    codec: str,
    fitted: Mapping[str, NDArray[Any]],
    sample: NDArray[np.float32],
) -> dict[str, Any]:
    """Fit the further stages of the exposed rows."""
    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.codec.tier_fit import exposed_rows, fit_tier

    rows, features = exposed_rows(inputs, params.tier_rows), Features.of(inputs)
    arrays = fit_tier(
        params.tier, rows, features, codec, fitted, sample, params.sample, params.seed
    )
    for name, values in arrays.items():
        writer.array(name, values)
    return {"tier": params.tier, "tier_rows": len(rows), "tier_arrays": sorted(arrays)}


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    graph, edges = features_of(facts), int(facts["graph"]["nnz"])
    nodes, columns, nnz = int(graph["num_nodes"]), int(graph["num_features"]), int(graph["x_nnz"])
    read = 4 * nodes * columns if graph["features"] == "dense" else 8 * nnz + 8 * (nodes + 1)
    kind = parse(params.codec)
    sample = 4 * columns * min(params.sample, nodes)
    # The normal equations of `rq` and their factors; the sample as read, mixed and centred, its
    # rest and scores.
    training = kind.coder_bytes(columns) + (
        3 * 8 * (kind.units * kind.entries) ** 2 if kind.family == "rq" else 0
    )
    measuring = rate_bytes(nodes, columns, edges)
    held = 5 * sample + training + measuring + 8 * nodes
    tables = kind.table_bytes(columns)
    if params.tier:
        tier = parse(params.tier)
        # Weights of all nodes and their copy; the rows it is trained on, what is left of them, and
        # its training.
        trained = tier.coder_bytes(columns) + 3 * 8 * (tier.units * tier.entries) ** 2
        held += (
            24 * nodes
            + 8 * params.tier_rows
            + 5 * 4 * columns * min(params.sample, params.tier_rows)
            + trained
        )
        tables += tier.table_bytes(columns) + 8 * params.tier_rows
        read += 4 * nodes + 4 * edges + 4 * columns * min(params.sample, params.tier_rows)
    return Cost(read + 8 * nodes, tables, held + (128 << 20))


STAGE = Stage(
    name="codebook",
    version=2,
    exact=False,
    params=Params,
    roles=("graph", "propagated", "split"),
    reads=(
        "features.codec",
        "features.lossless_up_to",
        "features.tier_share",
        "features.tier_bytes",
    ),
    resolve=_resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
