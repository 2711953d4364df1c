"""`report.html` is one file that needs nothing else: what a run was, what it cost, and what its models are worth.

Every figure is one of `summary.json`, of a manifest, of a record index or of a learning curve; none is computed twice.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import dag
from pipeline.budget import human_bytes
from pipeline.report_chart import Line, line_chart, meter
from pipeline.report_dag import draw
from pipeline.report_html import count, number, page, percent, section, table, text
from pipeline.report_origin import origin_sections
from pipeline.report_records import record_sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.recipe import Recipe
    from pipeline.report_records import Sizes
    from pipeline.summary import Built

__all__ = ["Curve", "Report", "curves", "render"]


@dataclass(frozen=True)
class Curve:
    """One ingredient's learning curve.

    Attributes
    ----------
    node : its node id.
    name : as titles say it.
    series : name -> (epoch from 1, value) pairs.
    valid_accuracy : of the weights it kept.
    """

    node: str
    name: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    valid_accuracy: float | None = None


@dataclass(frozen=True)
class Report:
    """All that stands on the page.

    Attributes
    ----------
    summary : as `summary.json`.
    built : the committed artifacts; what the recipe has beside them is shown as not built.
    sizes : split -> sizes of its records.
    command : what builds this run.
    machine : what wrote the page.
    beside : name of a file in the same folder -> what it is, for a link.
    """

    recipe: Recipe
    summary: Mapping[str, Any]
    built: Sequence[Built]
    learning: Sequence[Curve] = ()
    sizes: Mapping[str, Sizes] = field(default_factory=dict)
    command: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)


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
        found.append(
            Curve(b.node.id, f"{b.node.id}, seed {b.facts.get('seed')}", series, b.facts.get("valid_accuracy"))
        )
    return found


def render(report: Report) -> str:
    """The page as text."""
    summary = report.summary
    data = summary["dataset"]
    parts = [
        f"<h1>{text(data['name'])}</h1>",
        (
            f"<p>{count(data['num_nodes'])} nodes, {count(data['num_edges'])} edges "
            f"({count(data['num_edges_stored'])} as published), {count(data['num_features'])} features, "
            f"{count(data['num_classes'])} classes{_splits(data['splits'])}</p>"
        ),
        _result(summary),
        section("Accuracy", _accuracies(summary)),
        section("Learning curves", _learning(report.learning)),
        section("Stages", _stages(report), *_beside(report.beside)),
        section("Mini-batch records", *record_sections(summary, report.sizes)),
        *origin_sections(report.recipe, report.built, report.command, report.machine),
    ]
    return page(f"stockpot: {data['name']}", "\n".join(part for part in parts if part))


def _splits(splits: Mapping[str, Any] | None) -> str:
    if not splits:
        return ""
    return "; " + ", ".join(f"{text(name)} {count(outputs)}" for name, outputs in splits.items())


def _result(summary: Mapping[str, Any]) -> str:
    """The one sentence a reader comes for."""
    soup, infer = summary["soup"], summary["infer"]
    if soup is None:
        return ""
    found = ""
    if infer is not None:
        found = f", test accuracy {percent(infer['test_accuracy']) or 'unknown'} on mini-batches"
        whole = infer["full_graph_test_accuracy"]
        if "accuracy" in infer:
            found = f", accuracy {percent(infer['accuracy']) or 'unknown'} on all nodes asked for that have labels"
            whole = infer["full_graph_accuracy"]
        found += "" if whole is None else f", {percent(whole)} by exact inference on the full graph"
        found += f"; {count(infer['num_outputs'])} nodes in {number(infer['seconds'], 1)} s"
    return f'<p class="result">Chosen on validation: {text(soup["chosen"])}{found}.</p>'


def _accuracies(summary: Mapping[str, Any]) -> str:
    """Single models, their mean, and soups; the full graph where it was asked for, of the chosen soup only."""
    singles = (summary["train"] or {"ingredients": []})["ingredients"]
    soup, infer = summary["soup"] or {"methods": {}, "chosen": None}, summary["infer"] or {}
    whole = infer.get("full_graph_test_accuracy")
    rows: list[Sequence[str]] = []
    marked = []
    for i, single in enumerate(singles):
        about = f"{count(single['epochs'])} epochs, {number(single['seconds_per_epoch'])} s each"
        scores = (percent(single["valid_accuracy"]), percent(single["test_accuracy"]))
        rows.append((f"single model {i}, seed {text(single['seed'])}", *scores, "", about))
        marked.append(False)
    if len(singles) > 1:
        spread = [_spread([s[name] for s in singles]) for name in ("valid_accuracy", "test_accuracy")]
        rows.append(("mean ± standard deviation", *spread, "", f"of {len(singles)} single models"))
        marked.append(False)
    for name, method in soup["methods"].items():
        members = method.get("members")
        chosen = name == soup["chosen"]
        about = "" if members is None else f"of single model{'s' * (len(members) > 1)} {_members(members)}"
        about += ", chosen on validation" if chosen else ""
        scores = (percent(method["valid_accuracy"]), percent(method["test_accuracy"]))
        rows.append((f"soup: {text(name)}", *scores, percent(whole) if chosen else "", about.removeprefix(", ")))
        marked.append(chosen)
    head = ("model", "valid", "test", "test, full graph", "")
    about = (
        "Accuracy on the packed validation and test records; by exact inference on the full graph for the chosen soup."
    )
    return table(head, rows, about=about, marked=marked, words=1) if rows else ""


def _members(members: Sequence[int]) -> str:
    return ", ".join(str(m) for m in members)


def _spread(values: Sequence[float | None]) -> str:
    """Mean and unbiased standard deviation, as a percentage; empty where one is unknown."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return ""
    return f"{100 * statistics.mean(known):.2f} ± {100 * statistics.stdev(known):.2f} %"


def _learning(learning: Sequence[Curve]) -> str:
    """Loss and validation accuracy: the best single model stands out, the others show the spread."""
    if not learning:
        return ""
    best = max(learning, key=lambda c: -1.0 if c.valid_accuracy is None else c.valid_accuracy)
    figures = []
    for name, title, scale in (
        ("loss", "training loss (nats)", 1.0),
        ("valid_accuracy", "validation accuracy (%)", 100.0),
    ):
        lines = [Line(c.name, c.series.get(name, ()), strong=c is best) for c in learning]
        lines = [line for line in lines if line.points]
        if lines:
            ends = "; ".join(
                f"{line.name}: {line.points[0][1] * scale:.4g} to {line.points[-1][1] * scale:.4g}" for line in lines
            )
            figures.append(f"<figure>{line_chart(lines, title, ends, 'epoch', scale)}</figure>")
    others = f', <span class="key"></span> the other {len(learning) - 1}' if len(learning) > 1 else ""
    legend = f'<p><span class="key best"></span> {text(best.name)}, the best on validation{others}</p>'
    return f'<div class="charts">{"".join(figures)}</div>{legend if figures else ""}'


def _stages(report: Report) -> str:
    artifacts = report.summary["artifacts"]
    nodes = dag.build(report.recipe)
    most = max((max(a["peak_bytes"], a["projected_bytes"] or 0) for a in artifacts.values()), default=0)
    longest = max((a["seconds"] for a in artifacts.values()), default=0.0)
    rows = []
    for node in nodes:
        a = artifacts.get(node.id)
        if a is None:
            rows.append((text(node.id), "not built", *[""] * 8))
            continue
        peak, projected = a["peak_bytes"], a["projected_bytes"]
        known = projected is not None
        rows.append(
            (
                text(node.id),
                "cached" if a["cached"] else "built",
                number(a["seconds"], 1),
                meter(a["seconds"], 0, longest, 60),
                human_bytes(peak),
                human_bytes(projected) if known else "?",
                f"{100 * peak / projected:.0f} %" if projected else "",
                meter(peak, projected if known else 0, most),
                human_bytes(a["bytes"]),
                f"<code>{text(a['key'][:12])}</code>",
            )
        )
    head = ("artifact", "state", "seconds", "", "peak memory", "projected", "used", "", "stored", "key")
    about = (
        "Seconds and peak memory are those of the run that built the artifact; memory is of one task above its worker, "
        "measured (thin bar) and projected (track)."
    )
    picture = (
        f'<div class="wide" tabindex="0" role="region" aria-label="Graph of the stages">{draw(nodes, artifacts)}</div>'
    )
    return picture + table(head, rows, about=about)


def _beside(files: Mapping[str, str]) -> list[str]:
    return [f'<p><a href="{text(name)}">{text(name)}</a>: {text(about)}.</p>' for name, about in files.items()]
