"""`summary.json` comes from manifests alone: built just now or cached, the figures are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.planning.registry import STAGES
from stockpot.report.accuracies import Row, ensemble_row, soup_rows
from stockpot.report.verdict import thread_seconds, verdict
from stockpot.stages.built import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.stages.built import Built

__all__ = [
    "accuracy_rows",
    "inference_seconds",
    "remarks",
    "set_words",
    "single_words",
    "student_words",
    "summarise",
    "view_of",
]


def view_of(recipe: Recipe, built: Sequence[Built], read: Mapping[str, Any] | None = None) -> View:
    """A run as its stages see it."""
    return View(recipe.values(), {b.node.id: b for b in built}, read or {})


def remarks(view: View) -> list[str]:
    """One line a remark, none where there is nothing to say: results first, the data set last.

    They follow from manifests and the recipe alone, so a cached run makes the same ones. An "auto"
    that weighed both sides and took the cheaper one is no remark; one that could not do what it is
    there for is.
    """
    return [line for stage in reversed(STAGES.values()) for line in stage.reporting.remarks(view)]


def summarise(recipe: Recipe, built: Sequence[Built]) -> dict[str, Any]:
    """The contract's `summary.json`; null where a stage or figure is absent."""
    view = view_of(recipe, built)
    entries: dict[str, Any] = {name: _stage(view.of(name)) for name in STAGES if view.of(name)}
    document: dict[str, Any] = {
        "remarks": remarks(view),
        "dataset": {"name": recipe.name},
        "stages": {"influence": None, "quantize": None, "hag": None, **entries},
        "train": None,
        "soup": None,
        "infer": None,
        "artifacts": {b.node.id: _artifact(b) for b in built},
    }
    for stage in STAGES.values():
        for section, found in stage.reporting.summary(view).items():
            if section == "stages":
                for name, figures in found.items():
                    document["stages"][name] = {**(document["stages"].get(name) or {}), **figures}
            else:
                document[section] = {**(document.get(section) or {}), **found}
    source = str(view.values["dataset.source"])
    document["verdict"] = verdict(document, source, thread_seconds(built))
    return document


def _artifact(b: Built) -> dict[str, Any]:
    return {
        "stage": b.node.stage,
        "key": b.key,
        "cached": b.cached,
        **{name: b.manifest[name] for name in ("seconds", "peak_bytes", "bytes_written")},
        "projected_bytes": b.projected_bytes,
        "bytes": sum(file["size"] for file in b.manifest["files"].values()),
    }


def _stage(nodes: Sequence[Built]) -> dict[str, Any]:
    """One entry a stage; where it has several artifacts: the first key, sums, and the largest
    peak.
    """
    found: dict[str, Any] = {
        "key": nodes[0].key,
        "cached": all(b.cached for b in nodes),
        "seconds": sum(b.manifest["seconds"] for b in nodes),
        "peak_bytes": max(b.manifest["peak_bytes"] for b in nodes),
        "bytes_written": sum(b.manifest["bytes_written"] for b in nodes),
    }
    if len(nodes) > 1:
        found["keys"] = {b.node.id: b.key for b in nodes}
    return found


def set_words(infer: Mapping[str, Any]) -> str:
    """How large the sets of inference are where nobody chose it for inference, in words; else
    empty.
    """
    sets = infer.get("sets")
    if sets is None or sets["by"] != "training":
        return ""
    return (
        f"records hold {sets['top_k']} nodes of every output because those of training do; "
        f"--set infer.top_k=auto asks the trained model how many it needs"
    )


def inference_seconds(infer: Mapping[str, Any]) -> str:
    """What took how long in inference, in words; empty where an older version measured all of it as
    one.
    """
    parts = [
        f"{_seconds(infer[name])} {what}"
        for name, what in (
            ("seconds", "by the chosen model alone"),
            ("full_graph_seconds", "exactly on the full graph"),
            ("all_models_seconds", "by all models"),
            ("load_seconds", "to load them"),
            ("write_seconds", "to write the predictions"),
        )
        if infer.get(name) is not None
    ]
    return ", ".join(parts)


def student_words(infer: Mapping[str, Any]) -> str:
    """What the student is worth, in words; empty where there is none."""
    student = infer.get("student")
    if student is None:
        return ""
    kept, taught = (
        "-" if student[name] is None else f"{100 * student[name]:.2f} %"
        for name in ("test_accuracy", "taught_test_accuracy")
    )
    said = (
        f"the student: test accuracy {kept} by one that was not taught these nodes, {taught} by "
        f"the one that serves"
    )
    each = student["hundredth"]
    if each["seconds"] is None:
        return said
    return (
        f"{said}; {each['outputs']:,} nodes in {1000 * each['seconds']:.3g} ms by one thread, "
        f"{1000 * each['table_seconds']:.3g} ms looked up in predictions.arrow"
    )


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2g} s"


def single_words(single: Mapping[str, Any]) -> str:
    """What sets a single model apart: its seed, of a tail its epoch too, counted from 1."""
    epoch = f", epoch {single['epoch'] + 1}" if "epoch" in single else ""
    return f"seed {single['seed']}{epoch}"


def accuracy_rows(summary: Mapping[str, Any]) -> list[Row]:
    """Every single model, every soup that differs from others, and the mean of all predictions."""
    rows = [
        Row(
            f"single model {i} ({single_words(single)})",
            single["valid_accuracy"],
            single["test_accuracy"],
        )
        for i, single in enumerate((summary["train"] or {"ingredients": []})["ingredients"])
    ]
    soup = summary["soup"]
    if soup is not None:
        rows += [*soup_rows(soup), *filter(None, [ensemble_row(soup["ensemble"])])]
    return rows
