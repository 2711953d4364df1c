"""What pack says of a run: its splits, and the sizes of their records, drawn only where they
vary.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.built import RECORDS, Block
from stockpot.stages.influence.reporting import splits
from stockpot.stages.show.chart import histograms
from stockpot.stages.show.html import count, number, percent, table, text
from stockpot.stages.show.plain import human_bytes
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stockpot.stages.built import View
    from stockpot.stages.stage import Reader

__all__ = ["REPORTING", "Sizes", "read_sizes"]


WHAT = ("nodes", "edges", "outputs")
ALIKE = 0.02  # sizes whose range is at most this share of their mean need no chart


@dataclass(frozen=True)
class Sizes:
    """Counts of each record of a split, in their order."""

    nodes: Sequence[int]
    edges: Sequence[int]
    outputs: Sequence[int]


def read_sizes(packed: Reader, node: str = "") -> Sizes | None:
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


def _summary(view: View) -> Mapping[str, Any]:
    return splits(view, "pack")


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    """Table of the splits, and their record sizes."""
    stages = summary["stages"]
    sizes = {
        str(b.node.instance["split"]): view.read[b.node.id]
        for b in view.of("pack")
        if b.node.id in view.read
    }
    yield Block(
        RECORDS,
        _splits((stages.get("influence") or stages.get("sample") or {}).get("splits") or {}),
    )
    yield Block(RECORDS, _sizes(sizes))


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
    head = [
        "split",
        "records",
        "outputs",
        "rows",
        "edges",
        "replication",
        "captured influence",
        "dropped",
        "bytes",
    ]
    if several:
        head.insert(1, "rounds")
    per, of = (" / rounds", " of round 0") if several else ("", "")
    about = (
        f"Packed splits. Replication: rows / outputs{per}. Captured influence: mean share of an "
        f"output's PageRank mass "
        f"that is inside its record, over a sample{of}. Dropped: nodes that reach no output inside "
        f"the record."
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
            cells.setdefault(split, []).append(
                f"{min(values):,} / {statistics.median(values):,.0f} / {max(values):,}"
            )
        if any(max(v) - min(v) > ALIKE * statistics.mean(v) for v in per_split.values()):
            about = "; ".join(
                f"{split}: {len(v)} records of {min(v):,} to {max(v):,} {what}"
                for split, v in per_split.items()
            )
            title = f"records by number of {what}"
            charts.append(
                f"<figure>{histograms(per_split, title, about, f'{what} in a record')}</figure>"
            )
    head = ("split", *(f"{what} in a record" for what in WHAT))
    rows = [(text(split), *found) for split, found in cells.items()]
    about = (
        "Least / median / most, from the records' indexes; below, how many records there are "
        "of each size."
    )
    return table(head, rows, about=about) + f'<div class="charts">{"".join(charts)}</div>'


REPORTING = Reporting(_summary, read_sizes, _report)
