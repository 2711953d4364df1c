"""`report.html` is one file that needs nothing else: what a run was, what it cost, and what its
models are worth.

Every figure is one of `summary.json`, of a manifest, of a record index or of a learning curve; none
is computed twice.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stockpot.planning import dag
from stockpot.planning.registry import STAGES
from stockpot.report.accuracies import chosen_words, ensemble_row, soup_rows
from stockpot.report.origin import origin_sections
from stockpot.report.stages import draw
from stockpot.report.summary import inference_seconds, single_words, view_of
from stockpot.stages.show.chart import meter
from stockpot.stages.show.html import NO_BREAK, count, number, page, percent, section, table, text
from stockpot.stages.show.plain import human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.stages.built import Built

__all__ = ["Report", "render"]

RESULTS = ("Soups", "Learning curves")
"""Sections of the stages that stand before what the stages cost."""


@dataclass(frozen=True)
class Report:
    """All that stands on the page.

    Attributes
    ----------
    summary : as `summary.json`.
    built : the committed artifacts; what the recipe has beside them is shown as not built.
    read : node id -> what its stage read from its files.
    command : what builds this run.
    machine : what wrote the page.
    beside : name of a file in the same folder -> what it is, for a link.
    """

    recipe: Recipe
    summary: Mapping[str, Any]
    built: Sequence[Built]
    read: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)


def render(report: Report) -> str:
    """The page as text."""
    summary = report.summary
    data = summary["dataset"]
    told = _told(report)
    first = [section(title, *told.pop(title)) for title in RESULTS if title in told]
    parts = [
        f"<h1>{text(data['name'])}</h1>",
        (
            f"<p>{count(data['num_nodes'])} nodes, {count(data['num_edges'])} edges "
            f"({count(data['num_edges_stored'])} as published), {count(data['num_features'])} "
            f"features, "
            f"{count(data['num_classes'])} classes{_splits(data['splits'])}</p>"
        ),
        _result(summary),
        _verdict(summary["verdict"]),
        _remarks(summary["remarks"]),
        section("Accuracy", _accuracies(summary)),
        *first,
        section("Stages", _stages(report), *_beside(report.beside)),
        *(section(title, *bodies) for title, bodies in told.items()),
        *origin_sections(report.recipe, report.built, report.command, report.machine),
    ]
    return page(f"stockpot: {data['name']}", "\n".join(part for part in parts if part))


def _told(report: Report) -> dict[str, list[str]]:
    """Section -> what the stages say in it: tables and charts, then sentences."""
    view = view_of(report.recipe, report.built, report.read)
    blocks = [
        block for stage in STAGES.values() for block in stage.reporting.report(report.summary, view)
    ]
    found: dict[str, list[str]] = {}
    for block in sorted(blocks, key=lambda block: block.sentence):
        found.setdefault(block.section, []).append(block.body)
    return found


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
            found = (
                f", accuracy {percent(infer['accuracy']) or 'unknown'} on all nodes asked for "
                f"that have labels"
            )
            whole = infer["full_graph_accuracy"]
        found += "" if whole is None else f", {percent(whole)} by exact inference on the full graph"
        found += (
            f"; {count(infer['num_outputs'])} nodes, "
            f"{inference_seconds(infer) or 'seconds unknown'}"
        )
    return f'<p class="result">{text(chosen_words(soup))}{found}.</p>'


def _verdict(lines: Sequence[str]) -> str:
    """What the run is worth, and what to try next."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="verdict" aria-label="Verdict">{items}</ul>' if lines else ""


def _remarks(lines: Sequence[str]) -> str:
    """What a reader should know about the result, before any figure."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="remarks" aria-label="Remarks">{items}</ul>' if lines else ""


def _accuracies(summary: Mapping[str, Any]) -> str:
    """Single models, their mean, and soups; the full graph where it was asked for, of the chosen
    soup only.
    """
    singles = (summary["train"] or {"ingredients": []})["ingredients"]
    soup, infer = summary["soup"] or {"methods": {}, "chosen": None}, summary["infer"] or {}
    whole = infer.get("full_graph_test_accuracy")
    rows: list[Sequence[str]] = []
    marked = []
    for i, single in enumerate(singles):
        about = f"{count(single['epochs'])} epochs, {number(single['seconds_per_epoch'])} s each"
        scores = (percent(single["valid_accuracy"]), "", percent(single["test_accuracy"]))
        rows.append((f"single model {i}, {text(single_words(single))}", *scores, "", about))
        marked.append(False)
    if len(singles) > 1:
        valid, test = (
            _spread([s[name] for s in singles]) for name in ("valid_accuracy", "test_accuracy")
        )
        rows.append(
            ("mean ± standard deviation", valid, "", test, "", f"of {len(singles)} single models")
        )
        marked.append(False)
    for row in soup_rows(soup):
        scores = (percent(row.valid), percent(row.cross_fitted), percent(row.test))
        about = ", ".join([*_members(soup["methods"][row.methods[0]]), *row.remarks])
        rows.append((text(row.name), *scores, percent(whole) if row.chosen else "", text(about)))
        marked.append(row.chosen)
    if (mean := ensemble_row(soup.get("ensemble"))) is not None:
        rows.append(
            (
                text(mean.name),
                percent(mean.valid),
                "",
                percent(mean.test),
                "",
                text(mean.remarks[0]),
            )
        )
        marked.append(False)
    # A column without a figure says nothing.
    kept = [i for i in range(6) if i not in (2, 3, 4) or any(row[i] for row in rows)]
    head = [
        ("model", "valid", "cross-fitted", "test", "test, full graph", "remarks")[i] for i in kept
    ]
    rows = [[row[i] for i in kept] for row in rows]
    about = (
        "Accuracy of each model on the packed validation and test records; by exact inference on "
        "the full graph for "
        "the model that ships. Soups are fitted to the validation records; cross-fitted: each "
        "method's two soups "
        "of halves of them, on what each has not seen; by that it is chosen."
    )
    return table(head, rows, about=about, marked=marked, words=1) if rows else ""


def _members(method: Mapping[str, Any]) -> list[str]:
    """Of which single models a soup is, in words; none where it is one of them, or does not say."""
    members = method.get("members")
    if members is None or str(method.get("same_as")).startswith("ingredient:"):
        return []
    return [f"of single model{'s' * (len(members) > 1)} {', '.join(str(m) for m in members)}"]


def _spread(values: Sequence[float | None]) -> str:
    """Mean and unbiased standard deviation, as a percentage; empty where one is unknown."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return ""
    return f"{100 * statistics.mean(known):.2f} ± {100 * statistics.stdev(known):.2f}{NO_BREAK}%"


def _stages(report: Report) -> str:
    artifacts = report.summary["artifacts"]
    nodes = dag.needed(dag.build(report.recipe), artifacts)
    most = max(
        (max(a["peak_bytes"], a["projected_bytes"] or 0) for a in artifacts.values()), default=0
    )
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
    head = (
        "artifact",
        "state",
        "seconds",
        "",
        "peak memory",
        "projected",
        "used",
        "",
        "stored",
        "key",
    )
    about = (
        "Seconds and peak memory are those of the run that built the artifact; memory is of one "
        "task above its worker, "
        "measured then (thin bar) and projected now (track)."
    )
    picture = (
        f'<div class="wide" tabindex="0" role="region" aria-label="Graph of the '
        f'stages">{draw(nodes, artifacts)}</div>'
    )
    return picture + table(head, rows, about=about)


def _beside(files: Mapping[str, str]) -> list[str]:
    return [
        f'<p><a href="{text(name)}">{text(name)}</a>: {text(about)}.</p>'
        for name, about in files.items()
    ]
