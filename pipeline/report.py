"""`report.html` is one file that needs nothing else: stages, records, learning curves and accuracies of a run."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from pipeline.budget import human_bytes
from pipeline.summary import accuracy_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.summary import Built

__all__ = ["Curve", "curves", "render"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #d9dee7; --page: #ffffff; --bar: #4a7ebb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #98a2b3; --line: #39414f; --page: #14181f; --bar: #7fb0ea; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, figcaption { color: var(--soft); } code { font-size: .85em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child, td.text { text-align: left; }
tr.chosen td { font-weight: 650; }
.bar { display: inline-block; height: .6em; background: var(--bar); border-radius: 2px; vertical-align: middle; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg .axis { stroke: var(--line); }
svg path { fill: none; stroke-width: 1.6; }
.legend span { display: inline-block; width: .8em; height: .2em; vertical-align: middle; margin: 0 .35em 0 .9em; }
"""
_COLOURS = (
    "#3b76c4",
    "#d9822b",
    "#3d9a5f",
    "#c0504d",
    "#8064a2",
    "#2a9fa8",
    "#b8952b",
    "#a0577c",
    "#6b7f3a",
    "#7a6a5b",
)
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 440, 230, 46, 26, 10


class Curve:
    """One ingredient's learning curve.

    Attributes
    ----------
    name : as the legend says it.
    series : name -> (epoch, value) pairs.
    """

    def __init__(self, name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        self.name = name
        self.series = series


def curves(built: Sequence[Built], history: Mapping[str, Path]) -> list[Curve]:
    """Learning curves of the trained nodes.

    Parameters
    ----------
    history : node id -> its `history.json`, a list with one table per epoch.
    """
    found = []
    for b in built:
        if b.node.id not in history:
            continue
        epochs = json.loads(history[b.node.id].read_bytes())
        rows = epochs["epochs"] if isinstance(epochs, dict) else epochs
        series = {
            name: [(float(i), float(row[name])) for i, row in enumerate(rows, 1) if row.get(name) is not None]
            for name in ("loss", "valid_accuracy")
        }
        found.append(Curve(f"{b.node.id}, seed {b.facts.get('seed')}", series))
    return found


def render(summary: Mapping[str, Any], built: Sequence[Built], learning: Sequence[Curve]) -> str:
    """The page as text."""
    data = summary["dataset"]
    parts = [
        f"<h1>{_text(data['name'])}</h1>",
        (
            f"<p>{_count(data['num_nodes'])} nodes, {_count(data['num_edges'])} edges "
            f"({_count(data['num_edges_stored'])} as published), {_count(data['num_features'])} features, "
            f"{_count(data['num_classes'])} classes{_splits(data['splits'])}</p>"
        ),
    ]
    if rows := accuracy_rows(summary):
        parts += ["<h2>Accuracy</h2>", _accuracies(rows, summary)]
    if learning:
        parts += ["<h2>Learning curves</h2>", _charts(learning)]
    parts += ["<h2>Stages</h2>", _stages(built)]
    if records := _records(summary):
        parts += ["<h2>Mini-batch records</h2>", records]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>stockpot: {_text(data['name'])}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _count(value: Any) -> str:
    return "?" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _splits(splits: Mapping[str, Any] | None) -> str:
    if not splits:
        return ""
    return "; " + ", ".join(f"{name} {_count(count)}" for name, count in splits.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] | None = None) -> str:
    """Cells are HTML already."""
    lines = ['<div class="wide"><table><tr>' + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    for i, row in enumerate(rows):
        chosen = ' class="chosen"' if marked and marked[i] else ""
        lines.append(f"<tr{chosen}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return "\n".join(lines) + "\n</table></div>"


def _accuracies(rows: Sequence[tuple[str, float | None, float | None]], summary: Mapping[str, Any]) -> str:
    text = _table(
        ("model", "valid", "test"),
        [(_text(name), _percent(valid), _percent(test)) for name, valid, test in rows],
        ["chosen" in name for name, _, _ in rows],
    )
    infer = summary["infer"]
    if infer is None:
        return text
    whole = infer["full_graph_test_accuracy"]
    beside = "" if whole is None else f", exact full-graph inference {_percent(whole)}"
    found = f"test accuracy {_percent(infer['test_accuracy']) or 'unknown'}{beside}"
    if "accuracy" in infer:
        found = f"accuracy on all of them that have labels {_percent(infer['accuracy']) or 'unknown'}"
    return f"{text}<p>Inference on {_count(infer['num_outputs'])} nodes in {infer['seconds']:.1f} s: {found}.</p>"


def _stages(built: Sequence[Built]) -> str:
    longest = max((b.manifest["seconds"] for b in built), default=0.0) or 1.0
    rows = []
    for b in built:
        seconds, peak = b.manifest["seconds"], b.manifest["peak_bytes"]
        share = f"{100 * peak / b.projected_bytes:.0f} %" if b.projected_bytes else ""
        width = max(1, round(90 * seconds / longest))
        rows.append(
            (
                _text(b.node.id),
                "cached" if b.cached else "built",
                f'{seconds:.1f} <span class="bar" style="width:{width}px"></span>',
                human_bytes(peak),
                human_bytes(b.projected_bytes) if b.projected_bytes else "",
                share,
                human_bytes(b.manifest["bytes_written"]),
                f"<code>{_text(b.key[:12])}</code>",
            )
        )
    head = ("artifact", "state", "seconds", "peak memory", "projected", "used", "bytes written", "key")
    note = "<p>Seconds and peak memory are those of the run that built the artifact; memory is above the worker.</p>"
    return _table(head, rows) + note


def _records(summary: Mapping[str, Any]) -> str:
    stages = summary["stages"]
    splits = (stages.get("influence") or {}).get("splits") or {}
    rows = [
        (
            _text(split),
            _count(figures["records"]),
            _count(figures["rows"]),
            _count(figures["edges"]),
            "" if figures["replication"] is None else f"{figures['replication']:.2f}",
        )
        for split, figures in splits.items()
    ]
    if not rows:
        return ""
    text = _table(("split", "records", "rows", "edges", "replication"), rows)
    partition = stages.get("partition") or {}
    if partition.get("edge_cut") is not None:
        text += (
            f"<p>Partition: {_count(partition['parts'])} parts by {_text(partition['method'])}, "
            f"{_percent(partition['edge_cut'])} of the edges cut, largest part {partition['balance']:.2f} x the mean. "
            "Replication = rows in records / outputs.</p>"
        )
    return text


def _charts(learning: Sequence[Curve]) -> str:
    titles = {"loss": "training loss", "valid_accuracy": "validation accuracy"}
    figures = []
    for name, title in titles.items():
        lines = [(i, curve.series.get(name, [])) for i, curve in enumerate(learning)]
        if any(points for _, points in lines):
            figures.append(f"<figure>{_chart(lines, title)}<figcaption>{title} by epoch</figcaption></figure>")
    legend = "".join(
        f'<span style="background:{_COLOURS[i % len(_COLOURS)]}"></span>{_text(curve.name)}'
        for i, curve in enumerate(learning)
    )
    return f'<div class="charts">{"".join(figures)}</div><p class="legend">{legend}</p>'


def _chart(lines: Sequence[tuple[int, Sequence[tuple[float, float]]]], title: str) -> str:
    xs = [x for _, points in lines for x, _ in points]
    ys = [y for _, points in lines for _, y in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, y1 = max(x1, x0 + 1), y1 if y1 > y0 else y0 + 1e-3

    def place(x: float, y: float) -> str:
        left = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - 8)
        top = _TOP + (y1 - y) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{left:.1f} {top:.1f}"

    floor = _HEIGHT - _BOTTOM
    body = [
        f'<line class="axis" x1="{_LEFT}" y1="{_TOP}" x2="{_LEFT}" y2="{floor}"/>',
        f'<line class="axis" x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - 8}" y2="{floor}"/>',
    ]
    for step in range(4):
        value = y0 + (y1 - y0) * step / 3
        body.append(f'<text x="{_LEFT - 6}" y="{place(x0, value).split()[1]}" text-anchor="end">{value:.3g}</text>')
    for value, anchor in ((x0, "start"), (x1, "end")):
        body.append(
            f'<text x="{place(value, y0).split()[0]}" y="{floor + 16}" text-anchor="{anchor}">{value:.0f}</text>'
        )
    for i, points in lines:
        if points:
            path = "M" + " L".join(place(x, y) for x, y in points)
            body.append(f'<path d="{path}" stroke="{_COLOURS[i % len(_COLOURS)]}"/>')
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{_text(title)}">{"".join(body)}</svg>'
