"""A run's folder always shows one finished state: `run.json`, `summary.json` and `report.html`,
each replaced whole.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stockpot.planning.registry import STAGES
from stockpot.report.accuracies import accuracy_text
from stockpot.report.machine import machine
from stockpot.report.page import Report, render
from stockpot.report.summary import (
    accuracy_rows,
    inference_seconds,
    set_words,
    student_words,
    summarise,
)
from stockpot.stages.built import Built
from stockpot.stages.show.plain import table
from stockpot.store.fs import unique
from stockpot.store.run_folder import dump, run_document, write_atomically

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from stockpot.planning.plan import Planned
    from stockpot.planning.recipe import Recipe
    from stockpot.store.store import Store

__all__ = ["built_of", "result_text", "write_outputs"]

BESIDE = {"dask-report.html": "Dask's own record of the last run that started workers"}
"""Files another part of a run may leave in its folder."""


def built_of(planned: Sequence[Planned], fresh: Collection[str]) -> list[Built]:
    """The committed nodes of a plan; those in `fresh` were built by this run."""
    return [
        Built(p.node, p.manifest, p.node.id not in fresh, p.cost.peak if p.cost else None)
        for p in planned
        if p.manifest is not None
    ]


def check_writable(folder: Path) -> None:
    """Write and remove a small file, so that a run whose figures have no place is refused before it
    computes them.

    Raises
    ------
    BadInput
        Naming the file and the mend.
    """
    made = [at for at in (folder, *folder.parents) if not at.exists()]
    probe = folder / f".probe-{unique()}"
    try:
        write_atomically(probe, "")
        probe.unlink()
    finally:
        for at in made:  # a run that fails leaves no empty folder
            with suppress(OSError):
                at.rmdir()


def write_outputs(
    recipe: Recipe, store: Store, runs: Path, built: Sequence[Built], command: str = ""
) -> dict[str, Any]:
    """Write the three files of a run and return the summary; `command` is what the report says
    builds it.
    """
    folder = runs / recipe.name
    summary = summarise(recipe, built)
    artifacts = {b.node.id: (b.node.stage, b.key, b.digest) for b in built}
    document = run_document(recipe.name, recipe.tables(), store.root, artifacts)
    write_atomically(folder / "run.json", dump(document))
    write_atomically(folder / "summary.json", dump(summary))
    write_atomically(
        folder / "report.html", render(_report(recipe, store, folder, built, summary, command))
    )
    return summary


def _report(
    recipe: Recipe,
    store: Store,
    folder: Path,
    built: Sequence[Built],
    summary: Mapping[str, Any],
    command: str,
) -> Report:
    """The report, from what is stored."""
    read = {}
    for b in built:
        reading = STAGES[b.node.stage].reporting.read
        if reading is None:
            continue
        if (held := reading(store.open(b.node.stage, b.key), b.node.id)) is not None:
            read[b.node.id] = held
    beside = {name: about for name, about in BESIDE.items() if (folder / name).exists()}
    return Report(recipe, summary, built, read, command, machine(), beside)


def result_text(summary: Mapping[str, Any], built: Sequence[Built], folder: Path) -> str:
    """What `run` prints at its end: stages, accuracies, inference, where the rest is, and the
    remarks.
    """
    stages = [
        [b.node.id, "cached" if b.cached else "built", f"{b.manifest['seconds']:.1f} s", b.key[:12]]
        for b in built
    ]
    parts = [table(("artifact", "state", "built in", "key"), stages, right=(2,))]
    if rows := accuracy_rows(summary):
        parts.append(accuracy_text(rows))
    infer = summary["infer"]
    if infer is not None:
        whole = infer["full_graph_test_accuracy"]
        beside = f"; exact full-graph inference {_percent(whole)}" if whole is not None else ""
        found = f"test accuracy {_percent(infer['test_accuracy'])}{beside}"
        if "accuracy" in infer:
            found = f"accuracy on all of them that have labels {_percent(infer['accuracy'])}"
        if (official := infer.get("official")) is not None:
            found += (
                f"; ogb's evaluator of {official['data']}: {official['metric']} "
                f"{official['value']:.4f}"
            )
        spent = inference_seconds(infer)
        student = student_words(infer)
        parts.append(
            f"inference on {infer['num_outputs']:,} nodes: {found}"
            + (f"\n  {spent}" if spent else "")
            + (f"\n  {sized}" if (sized := set_words(infer)) else "")
            + (f"\n  {student}" if student else "")
        )
    if said := summary["verdict"]:
        parts.append("\n".join(["verdict", *(f"  {line}" for line in said)]))
    if left_out := summary["dataset"]["left_out"]:
        parts.append(f"left out of the data set: {', '.join(left_out)}")
    parts.append(f"written: {folder / 'summary.json'}, {folder / 'report.html'}")
    if summary["remarks"]:
        parts.append("\n".join(f"remark: {line}" for line in summary["remarks"]))
    return "\n\n".join(parts)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
