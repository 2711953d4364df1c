"""Describes `quantize`: codes of all feature rows, readable from the artifact's facts alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.auto import (
    code_bytes,
    exact_codec,
    judged,
    keeps,
    lossless_limit,
    smaller_bits,
)
from stockpot.stages.codec.codec_names import is_lossy, parse
from stockpot.stages.codec.feature_columns import features_of, products_of
from stockpot.stages.codec.format import EXACT, FURTHER, TABLE, Codec, describe
from stockpot.stages.codec.row_blocks import BLOCK_ROWS, CHUNK_BYTES, row_shards
from stockpot.stages.codec.tiers import tier_of
from stockpot.stages.errors import BadInput
from stockpot.stages.quantize.planning import PLANNING
from stockpot.stages.quantize.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.codec.coder import Coder
    from stockpot.stages.codec.feature_blocks import Features

__all__ = ["STAGE", "Params"]


@dataclass(frozen=True)
class Params:
    """`codec`: one of `stockpot.stages.codec.format.EXACT`, or a lossy codec's name.

    `tier`, `tier_rows`: residual code of the most exposed rows, and how many these are; none where
    empty. `half`: of "fp32", half floats instead where every value is one, so that they lose
    nothing.
    """

    codec: str
    tier: str = added("")
    tier_rows: int = added(0)
    half: bool = added(off=False)


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    asked, graph = str(recipe["features.codec"]), features_of(facts)
    if graph["features"] == "none" or not graph["num_features"]:
        raise BadInput(
            "dataset: expected node features, found none",
            fix="add x, f4[num_nodes, num_features], to the data set",
        )
    lossless_limit(recipe)  # refused where it is no size, whatever the codec
    tier, tier_rows = tier_of(recipe, int(graph["num_nodes"]))
    if asked != "auto" and not is_lossy(asked) and tier:
        raise BadInput(
            f"features.tier_share: expected 0 beside features.codec = {asked}, which loses nothing "
            f"that further stages "
            f"could add, found {recipe['features.tier_share']:g}",
            fix="--set features.tier_share=0, or a codec such as --set features.codec=rq4",
        )
    if asked in ("fp32", "fp16"):
        return Params(asked)
    if asked == "auto":
        asked = exact_codec(graph) if keeps(recipe, graph) else judged(facts)
        if asked in EXACT:
            return Params(asked, half=asked == "fp32")
    if asked == "lossless":
        if graph["binary"]:
            return Params(smaller_bits(graph))
        found = code_bytes(describe("lossless-values", int(graph["num_features"])), graph)
        plain = code_bytes(describe("fp32", int(graph["num_features"])), graph)
        if found < plain:
            return Params("lossless-values")
        share = int(graph["x_nnz"]) / max(1, int(graph["num_nodes"]) * int(graph["num_features"]))
        raise BadInput(
            "features.codec lossless: expected features that are all 0 or 1, or mostly 0, found "
            "other values in "
            f"{share:.0%} of them: fp32 is exact and smaller",
            fix="--set features.codec=fp32, or a codec that may lose something",
        )
    parse(asked).row_bytes(int(graph["num_features"]))
    return Params(asked, tier, tier_rows)


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    rows = int(inputs["graph"].facts["num_nodes"])
    if params.codec in EXACT:
        return [Shard("codes", 0, rows)]
    return row_shards(rows)


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.codec.feature_blocks import Features

    features = Features.of(inputs)
    if params.codec in EXACT:
        return _run_exact(params, features, writer)
    import numpy as np

    from stockpot.stages.codec.coder import Sums
    from stockpot.stages.kernels.threads import in_order

    coder = _coder(params, inputs)
    codes = writer.create(
        f"part-codes-{shard.name}", (shard.stop - shard.start, coder.row_bytes), np.uint8
    )

    def encoded() -> Iterator[Sums]:
        done = 0
        blocks = (block for _, block in features.chunks(shard.start, shard.stop))
        for found, sums in in_order(coder.encode, blocks, writer.threads):
            codes[done : done + len(found)] = found
            done += len(found)
            writer.progress(done, len(codes), "rows")
            yield sums

    for what, values in vars(Sums.together(encoded())).items():
        writer.array(f"part-{what}-{shard.name}", values)
    return {}


def _run_exact(params: Params, features: Features, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.codec.encode import are_halves, encode

    name = "fp16" if params.half and are_halves(features) else params.codec
    codec = describe(name, features.num_features)
    written: list[Any] = []

    def made(shape: tuple[int, int]) -> NDArray[Any]:
        written.append(writer.create("codes", shape, "u1"))
        return written[0]

    codes, code_indptr, nmse = encode(codec, features, made)
    if code_indptr is not None:
        writer.array("code_indptr", code_indptr)
    if not written:
        writer.array("codes", codes)
    return _facts(
        codec,
        features.num_rows,
        codes.size + (0 if code_indptr is None else code_indptr.nbytes),
        nmse,
    )


def _facts(codec: Codec, rows: int, code_bytes: int, nmse: float) -> dict[str, Any]:
    return {
        "codec": codec.name,
        "description": codec.to_json(),
        "row_bytes": codec.row_bytes,
        "table_bytes": codec.table_bytes,
        "code_bytes": int(code_bytes),
        "compression_ratio": 4.0
        * rows
        * codec.num_features
        / max(1, code_bytes + codec.table_bytes),
        "nmse": nmse,
        "nmse_aggregated": None if nmse else 0.0,
        "num_nodes": rows,
        "num_features": codec.num_features,
    }


def _coder(params: Params, inputs: Inputs) -> Coder:
    from stockpot.stages.codec.coder import Coder

    book = inputs["codebook"]
    return Coder(params.codec, {name: book.array(name) for name in book.facts["arrays"]})


def _finish(
    params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    if params.codec in EXACT:
        return dict(shards["codes"].facts) | _measured(inputs)
    import numpy as np

    from stockpot.stages.codec.coder import Sums

    coder, rows, done = _coder(params, inputs), int(inputs["graph"].facts["num_nodes"]), 0
    codes = writer.create("codes", (rows, coder.row_bytes), np.uint8)
    for name in sorted(shards):
        mine = shards[name].array(f"part-codes-{name}")
        codes[done : done + len(mine)] = mine
        done += len(mine)
    parts = (
        Sums(**{f.name: shards[name].array(f"part-{f.name}-{name}") for f in fields(Sums)})
        for name in sorted(shards)
    )
    sums = Sums.together(parts)
    codec, nmse = coder.codec(sums)
    for name, table in codec.tables.items():
        writer.array(TABLE + name, table)
    if params.tier:
        return _finish_tier(params, inputs, writer, codec, codes, nmse, coder.spread(sums))
    return _facts(codec, rows, codes.size, nmse) | _measured(inputs)


def _finish_tier(
    params: Params,
    inputs: Inputs,
    writer: Writer,
    codec: Codec,
    codes: NDArray[Any],
    nmse: float,
    spread: float,
) -> dict[str, Any]:
    """Code what is left of the exposed rows, now that the tables of all rows stand."""
    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.codec.residual_tier import encode_further, further_coder

    book = inputs["codebook"]
    rows = book.array("tier_rows")
    coder = further_coder(
        params.tier, {name: book.array(name) for name in book.facts["tier_arrays"]}
    )
    found = encode_further(Features.of(inputs), rows, codec, codes, coder, writer.threads)
    for name, table in coder.as_fitted.tables.items():
        writer.array(FURTHER + name, table)
    writer.array("codes_1", found.codes)
    writer.array("codes_1_rows", rows)
    left = max(0.0, nmse * spread - found.before + found.after) / spread if spread else 0.0
    tier = {"codec": params.tier, "rows": len(rows), "row_bytes": coder.row_bytes}
    tier |= {"error_left": found.after / found.before if found.before else 0.0}
    coded_bytes = codes.size + found.codes.size + rows.nbytes
    return (
        _facts(found.codec, len(codes), coded_bytes, left)
        | {"tier": tier}
        | products_of({role: reader.facts for role, reader in inputs.items()})
    )


def _measured(inputs: Inputs) -> dict[str, Any]:
    """What `codebook` measured of the codec, and what the columns are products of."""
    found = inputs["codebook"].facts.get("nmse_aggregated") if "codebook" in inputs else None
    aggregated = {} if found is None else {"nmse_aggregated": found}
    return aggregated | products_of({role: reader.facts for role, reader in inputs.items()})


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    graph = features_of(facts)
    nodes, columns, nnz = int(graph["num_nodes"]), int(graph["num_features"]), int(graph["x_nnz"])
    read = 4 * nodes * columns if graph["features"] == "dense" else 8 * nnz + 8 * (nodes + 1)
    written = code_bytes(describe(params.codec, columns), graph)
    if params.codec not in EXACT:
        kind = parse(params.codec)
        blocks = 16 * columns * (nodes // BLOCK_ROWS + 1)
        held = kind.coder_bytes(columns) + blocks + 8 * max(CHUNK_BYTES, 4 * BLOCK_ROWS * columns)
        stored = kind.table_bytes(columns)
        if params.tier:
            tier = parse(params.tier)
            more = params.tier_rows * (tier.row_bytes(columns) + 8)
            held += tier.coder_bytes(columns) + more
            stored += tier.table_bytes(columns) + more
            read += 4 * columns * params.tier_rows
        return Cost(read + written, 2 * written + stored, held + (128 << 20))
    # Values are written as they are read, a dense chunk at a time; other codes are built whole,
    # beside the column ids.
    built = 0 if params.codec in ("fp32", "fp16") else written
    ids = 12 * nnz if params.codec.startswith("lossless") else 0
    return Cost(read, written, built + ids + (96 << 20))


STAGE = Stage(
    name="quantize",
    version=1,
    exact=True,
    params=Params,
    roles=("graph", "propagated", "codebook"),
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
