"""What quantize takes from a recipe: section `features`, one node, and the bytes of its codes."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.codec.codec_names import MOST_STAGES, parse
from stockpot.stages.codec.feature_columns import features_of, products_of, propagated
from stockpot.stages.codec.format import EXACT, describe
from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.recipe_key import SHARE, Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.units import MOST_BYTES
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING"]


@dataclass(frozen=True)
class Features:
    reduce: int = key(
        0,
        "dimensions; > 0: seeded truncated SVD in ingest, dense and much smaller; 0 keeps them",
        Range(0, 2**16),
    )
    propagate: int | Auto = key(
        0,
        "hops: the model reads [x, Mx, .., M^K x], M the matrix that it multiplies by (gcn) or the "
        "mean over neighbours; computed once; auto: what short trainings show to gain, at most 2",
        Range(0, 8),
    )
    propagate_by: Literal["auto", "mean", "norm", "ppr"] = key(
        "auto",
        "mean: over neighbours | norm: the normalised matrix | ppr: PageRank's steps by it, home "
        "with batches.alpha | auto: what the model reads, mean or norm",
    )
    codec: str = key(
        "auto",
        "auto | fp32 | fp16 | lossless | sqK (bits a column) | pqM opqM rqM (bytes a row) | "
        "bifeat-sqK | bifeat-vqW-K",
    )
    lossless_up_to: int | str = key(
        "2GB",
        'bytes of fp32 features, as "2GB" or a number, up to which codec = "auto" keeps them '
        "without loss",
        Range(0, MOST_BYTES),
    )
    max_accuracy_drop: float = key(
        0.002, "share of accuracy a codec chosen by auto may cost, as far as valid can tell", SHARE
    )
    tier_share: float = key(
        0.0,
        "share of the nodes, the most exposed (outputs, and hubs they read), whose codes get "
        "further stages",
        SHARE,
    )
    tier_bytes: int = key(
        8,
        "bytes a row of these further stages, a residual code of what the codec leaves",
        Range(1, MOST_STAGES),
    )
    layout: Literal["auto", "packed", "gather"] = key(
        "auto",
        "packed: codes beside every row of a record | gather: once, read by node | auto: by their "
        "bytes",
    )


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    book = {"codebook": "codebook"} if "codebook" in made else {}
    yield node(
        "quantize",
        {"graph": "ingest", **propagated(made), **book},
        {"judge": "judge"} if "judge" in made else {},
    )


def _guess(known: Known) -> Guess | None:
    graph = features_of(known.facts)
    nodes, columns, codec = graph["num_nodes"], graph["num_features"], known.param("codec", "fp32")
    row_bytes = describe(codec, columns).row_bytes
    entry = 8 if codec == "lossless-values" else 4
    tables = 0 if codec in EXACT else parse(codec).table_bytes(columns)
    code_bytes = entry * graph["x_nnz"] + 8 * nodes if row_bytes is None else nodes * row_bytes
    found = {}
    if (tier := known.param("tier", "")) and known.param("tier_rows", 0):
        size, rows = parse(tier).row_bytes(columns), known.param("tier_rows", 0)
        tables += parse(tier).table_bytes(columns)
        code_bytes += rows * (size + (4 if nodes < 1 << 31 else 8))
        found = {"tier": {"codec": tier, "rows": rows, "row_bytes": size, "error_left": 0.0}}
    return Guess(
        found
        | products_of(known.facts)
        | {
            "codec": codec,
            "row_bytes": row_bytes,
            "table_bytes": tables,
            "code_bytes": code_bytes,
            "compression_ratio": 4.0 * nodes * columns / max(1, code_bytes + tables),
            "nmse": 0.0,
            "nmse_aggregated": None,
            "num_nodes": nodes,
            "num_features": columns,
        },
        {"codec", "nmse"}
        if codec in EXACT and codec != "fp16" and "judge" not in known.facts
        else frozenset(),
    )


PLANNING = Planning(_nodes, {"features": Features}, _guess)
