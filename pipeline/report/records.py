"""Sizes of the packed records come from their indexes; what is one number is said, and only what varies is drawn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.planning.budget import human_bytes
from stockpot.report.chart import histograms
from stockpot.report.html import count, number, percent, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.stage import Reader

__all__ = ["Sizes", "read_sizes", "record_sections"]

WHAT = ("nodes", "edges", "outputs")
ALIKE = 0.02  # sizes whose range is at most this share of their mean need no chart


@dataclass(frozen=True)
class Sizes:
    """Counts of each record of a split, in their order."""

    nodes: Sequence[int]
    edges: Sequence[int]
    outputs: Sequence[int]


def read_sizes(packed: Reader) -> Sizes | None:
    """Sizes from the indexes of a `pack` artifact; None where it has none. O(records).

    Raises
    ------
    Corrupt
        An index does not match its digest.
    """
    found = [name for name in packed.names() if name.endswith(".index.arrow")]
    if not found:
        return None
    from stockpot.stages.pack.index import read_index

    indexes = [read_index(packed.path(name)) for name in sorted(found)]
    columns = ([int(n) for i in indexes for n in getattr(i, f"num_{what}")] for what in WHAT)
    return Sizes(*columns)


def record_sections(summary: Mapping[str, Any], sizes: Mapping[str, Sizes]) -> list[str]:
    """Table of the splits, their record sizes, and what partition, features and order are worth."""
    stages = summary["stages"]
    splits = (stages.get("influence") or stages.get("sample") or {}).get("splits") or {}
    return [part for part in (_splits(splits), _sizes(sizes), _sentences(stages)) if part]


def _splits(splits: Mapping[str, Mapping[str, Any]]) -> str:
    if not splits:
        return ""
    several = any((figures.get("rounds") or 1) > 1 for figures in splits.values())
    rows = [
        (
            text(split),
            *([count(figures.get("rounds"))] if several else []),
            *(count(figures.get(name)) for name in ("records", "outputs", "rows", "edges")),
            number(figures.get("replication")),
            percent(figures.get("captured")),
            count(figures.get("dropped_nodes")),
            "?" if figures.get("bytes") is None else human_bytes(figures["bytes"]),
        )
        for split, figures in splits.items()
    ]
    head = ["split", "records", "outputs", "rows", "edges", "replication", "captured influence", "dropped", "bytes"]
    if several:
        head.insert(1, "rounds")
    per, of = (" / rounds", " of round 0") if several else ("", "")
    about = (
        f"Packed splits. Replication: rows / outputs{per}. Captured influence: mean share of an output's PageRank mass "
        f"that is inside its record, over a sample{of}. Dropped: nodes that reach no output inside the record."
    )
    return table(head, rows, about=about)


def _sizes(sizes: Mapping[str, Sizes]) -> str:
    if not sizes:
        return ""
    cells: dict[str, list[str]] = {}
    charts = []
    for what in WHAT:
        per_split = {split: getattr(found, what) for split, found in sizes.items()}
        for split, values in per_split.items():
            cells.setdefault(split, []).append(f"{min(values):,} / {statistics.median(values):,.0f} / {max(values):,}")
        if any(max(v) - min(v) > ALIKE * statistics.mean(v) for v in per_split.values()):
            about = "; ".join(
                f"{split}: {len(v)} records of {min(v):,} to {max(v):,} {what}" for split, v in per_split.items()
            )
            title = f"records by number of {what}"
            charts.append(f"<figure>{histograms(per_split, title, about, f'{what} in a record')}</figure>")
    head = ("split", *(f"{what} in a record" for what in WHAT))
    rows = [(text(split), *found) for split, found in cells.items()]
    about = "Least / median / most, from the records' indexes; below, how many records there are of each size."
    return table(head, rows, about=about) + f'<div class="charts">{"".join(charts)}</div>'


def _sizing(sizing: Mapping[str, Any]) -> str:
    """What was measured where the recipe leaves sizes to "auto"."""
    found = [
        f"{text(split)} {count(one['records'])} of at most {count(one['outputs'])} outputs, "
        + ("each of the whole graph" if one["top_k"] == "all" else f"{count(one['top_k'])} neighbours kept")
        + f", which hold {' and '.join(percent(share) for share in one['held'][:2])}"
        for split, one in sizing["splits"].items()
    ]
    return (
        "Sizes of records were measured on the graph: "
        + "; ".join(found)
        + " of the neighbours of outputs and of their neighbours. Rows are "
        + ("corrected for the rest." if sizing["mass"] == "row" else "not corrected for the rest.")
    )


def _sentences(stages: Mapping[str, Any]) -> str:
    """Figures that need no chart."""
    said = []
    partition, codes, order = (stages.get(name) or {} for name in ("partition", "quantize", "order"))
    if partition.get("edge_cut") is not None:
        said.append(
            f"Partition: {count(partition['parts'])} parts by {text(partition['method'])}, edge cut "
            f"{percent(partition['edge_cut'])} of the edges, balance {number(partition['balance'])} "
            "(largest part / mean part)."
        )
    if (sizing := stages.get("sizing")) is not None:
        said.append(_sizing(sizing))
    if codes.get("codec") is not None:
        width = (
            "rows of varying length"
            if codes["bytes_per_row"] is None
            else f"{count(codes['bytes_per_row'])} bytes a row"
        )
        error = "" if codes.get("nmse") is None else f", normalised squared error {codes['nmse']:.3g}"
        ratio = codes.get("compression_ratio")
        smaller = "" if ratio is None else f", compression ratio {number(ratio)} against fp32"
        said.append(f"Features: {text(codes['codec'])}, {width}{smaller}{error}.")
        if (tier := codes.get("tier")) is not None:
            said.append(
                f"The {count(tier['rows'])} most exposed nodes have further stages ({text(tier['codec'])}, "
                f"{count(tier['row_bytes'])} bytes more), which leave {percent(tier['error_left'])} of their squared "
                "error."
            )
    if order.get("tour_length") is not None:
        said.append(
            f"Order of the training records: {text(order['method'])}; the label distances along it sum to "
            f"{number(order['tour_length'])}, in a random order to {number(order['random_length'])}."
        )
    if order.get("overlap") is not None:
        said.append(
            f"Order of the training records: {text(order['method'])}; {percent(order['overlap'])} of a record's rows "
            "stand in the one before it in the chain."
        )
    if (loads := stages.get("loadplan")) is not None:
        rows, read = sum(loads["rows"]), sum(loads["read"])
        said.append(
            f"Load plan: a cache of {count(loads['cache'])} rows ({human_bytes(loads['cache_bytes'])}); an epoch "
            f"reads {count(read // loads['epochs'])} rows of features for the {count(rows // loads['epochs'])} in its "
            f"records, {number(rows / max(1, read))} x fewer."
        )
    if (shared := stages.get("exchange")) is not None and shared.get("why"):
        why = shared["why"][0].upper() + shared["why"][1:]
        said.append(f"{count(shared['ranks'])} ranks train each model together. {text(why)}.")
    if (hag := stages.get("hag")) is not None and hag.get("why"):
        used = hag.get("records_used")
        saved = (
            f"{count(used)} records read {number(hag['reads_ratio'])} x fewer rows and add "
            f"{number(hag['adds_ratio'])} x fewer; "
            if used
            else "none; "
        )
        said.append(f"Shared partial sums: {saved}{text(hag['why'])}.")
    return "".join(f"<p>{sentence}</p>" for sentence in said)
