"""What a reader asks of a soup: is it better than one model, by more than chance, who is in it, and
why or why not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stockpot.stages.show.html import NO_BREAK, count, number, percent, table, text
from stockpot.stages.show.plain import human_bytes
from stockpot.stages.soup.soup_chart import Path, Scored, Weights, error_bars, heat_map, landscape
from stockpot.stages.train.ingredient import models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.built import Built

__all__ = ["Souped", "soup_sections", "souped_of", "varied"]

SINGLES = 12
"""Single models shown one by one; above it their mean and standard deviation."""
VARIED = ("lr", "weight_decay", "dropout")


@dataclass(frozen=True)
class Souped:
    """A finished soup.

    Attributes
    ----------
    facts : of the soup artifact, or of `soup.json`.
    seconds, peaks : method -> seconds, bytes.
    test : method or "ingredient:I" -> test accuracy; `test_labelled` outputs stand behind each.
    names : what each ingredient is called beside its number.
    """

    facts: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    peaks: Mapping[str, int] = field(default_factory=dict)
    test: Mapping[str, float | None] = field(default_factory=dict)
    test_labelled: int | None = None
    names: Sequence[str] = ()


def varied(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """What ingredients were trained with, in words, where they differ in it."""
    differing = [name for name in VARIED if len({p.get(name) for p in params}) > 1]
    return [
        ", ".join(f"{name.replace('_', ' ')} {p[name]:.3g}" for name in differing if name in p)
        for p in params
    ]


def souped_of(built: Sequence[Built]) -> Souped | None:
    """The soup among a run's artifacts."""
    by_id = {b.node.id: b for b in built}
    soup, infer = by_id.get("soup"), by_id.get("infer")
    if soup is None or not soup.facts.get("methods"):
        return None
    trained = [b for b in built if b.node.stage == "train"]
    tested = infer is not None and "pack:infer" not in infer.node.inputs.values()
    facts = infer.facts if infer is not None and tested else {}
    return Souped(
        soup.facts,
        soup.note("seconds") or {},
        soup.note("peak_bytes") or {},
        facts.get("results") or {},
        facts.get("labelled"),
        [
            ", ".join(filter(None, [words, f"epoch {one['epoch'] + 1}" if "epoch" in one else ""]))
            for b, words in zip(
                trained, varied([b.manifest.get("params") or {} for b in trained]), strict=True
            )
            for one in models(b.facts)
        ],
    )


def soup_sections(souped: Souped) -> list[str]:
    """Pictures and tables, each only where there is something to show."""
    facts = souped.facts
    parts = [_figure(error_bars(_scored(souped)), _about_errors(souped))]
    if paths := _paths(facts):
        parts.append(
            _figure(
                landscape(paths),
                "Measured on a few validation records. A hill between two models is a barrier: "
                "averages of both are "
                "worse than either.",
            )
        )
    if tables := _weights(facts):
        parts.append(
            _figure(
                heat_map(tables),
                "Columns are ingredients, rows groups of tensors; a row sums to one. A soup's "
                "largest weight is the "
                "darkest, negative ones have a broken outline.",
            )
        )
    parts += [_methods(souped), _ingredients(souped)]
    remarks = facts.get("remarks") or []
    parts.append("".join(f"<p>{text(remark)}.</p>" for remark in remarks))
    return [part for part in parts if part]


def _figure(picture: str, caption: str) -> str:
    inner = f'<div class="wide" tabindex="0" role="region" aria-label="picture">{picture}</div>'
    return f"<figure>{inner}<figcaption>{text(caption)}</figcaption></figure>"


def _error(share: float | None, labelled: int | None) -> float | None:
    """Standard error of a share of `labelled` independent outputs."""
    if share is None or not labelled:
        return None
    return math.sqrt(share * (1 - share) / labelled)


def _scored(souped: Souped) -> list[Scored]:
    facts = souped.facts
    n, m = facts.get("labelled"), souped.test_labelled

    def row(name: str, valid: float | None, key: str, *, strong: bool = False) -> Scored:
        test = souped.test.get(key)
        return Scored(name, valid, _error(valid, n), test, _error(test, m), strong)

    singles = [
        row(f"single model {i}", s["valid_accuracy"], f"ingredient:{i}")
        for i, s in enumerate(facts.get("ingredients") or [])
    ]
    rows = singles if len(singles) <= SINGLES else [_mean(singles)]
    rows += [
        row(f"soup: {name}", method["valid_accuracy"], name, strong=name == facts.get("chosen"))
        for name, method in facts["methods"].items()
    ]
    if (ensemble := facts.get("ensemble")) is not None:
        rows.append(row("all models together", ensemble["valid_accuracy"], "ensemble"))
    return rows


def _mean(singles: Sequence[Scored]) -> Scored:
    """Mean and standard deviation, which stand in for the errors of one model."""

    def both(values: Sequence[float | None]) -> tuple[float | None, float | None]:
        known = [v for v in values if v is not None]
        if len(known) < len(values):
            return None, None
        mean = sum(known) / len(known)
        return mean, math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1))

    name = f"{len(singles)} single models"
    return Scored(name, *both([s.valid for s in singles]), *both([s.test for s in singles]))


def _about_errors(souped: Souped) -> str:
    facts = souped.facts
    n = facts.get("labelled")
    said = f"Valid: {count(n)} outputs, which soups were fitted to"
    said += f"; test: {count(souped.test_labelled)} outputs. " if souped.test_labelled else ". "
    singles = len(facts.get("ingredients") or [])
    many = (
        f" The bar of {singles} single models is their standard deviation."
        if singles > SINGLES
        else ""
    )
    ceiling = " All models together is the mean of their predictions: a ceiling, not one model."
    return (
        f"{said}Bars are one standard error of an "
        f"accuracy.{many}{ceiling if facts.get('ensemble') else ''}"
    )


def _paths(facts: Mapping[str, Any]) -> list[Path]:
    names = set(facts["methods"])

    def said(name: str) -> str:
        return f"soup: {name}" if name in names else name.replace("ingredient", "model")

    return [
        Path(said(line["from"]), said(line["to"]), line["at"], line["loss"], strong=i == 0)
        for i, line in enumerate(facts.get("landscape") or [])
        if all(math.isfinite(loss) for loss in line["loss"])
    ]


def _weights(facts: Mapping[str, Any]) -> list[Weights]:
    # The best single model is one cell: nothing to see.
    found = [
        (name, m["alpha"])
        for name, m in facts["methods"].items()
        if name != "best" and m.get("alpha")
    ]
    return [Weights(name, alpha["groups"], alpha["weights"]) for name, alpha in found]


def _methods(souped: Souped) -> str:
    facts, rows, marked = souped.facts, [], []
    for name, method in facts["methods"].items():
        gain, error, p, fall = (
            method.get(key) for key in ("gain", "gain_error", "p_value", "loss_gain")
        )
        corrected = method.get("corrected_p_value")
        same = gain is None or name == "best"
        rows.append(
            (
                f"soup: {text(name)}",
                text((method.get("alpha") or {}).get("granularity", "")),
                percent(method.get("fit_accuracy")),
                percent(method.get("cross_fitted_accuracy")),
                percent(method["valid_accuracy"]),
                percent(souped.test.get(name)),
                "" if same else f"{100 * gain:+.2f} ± {100 * error:.2f}",
                "" if same or p is None else f"{p:.3f}",
                "" if same or fall is None else f"{fall:+.3f} ± {method['loss_error']:.3f}",
                "" if same or corrected is None else f"{corrected:.3f}",
                number(method.get("n_eff")),
                number(souped.seconds.get(name), 1),
                human_bytes(souped.peaks[name]) if name in souped.peaks else "",
            )
        )
        marked.append(name == facts.get("chosen"))
    head = (
        "soup",
        "weights by",
        "fit",
        "cross-fitted",
        "valid",
        "test",
        "gain, points",
        "p",
        "fall of the loss",
        "p, corrected",
        "effective models",
        "seconds",
        "peak memory",
    )
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    about = (
        "What each soup is worth. Valid and test: of the soup itself, which is fitted to all "
        "validation outputs. "
        "Fit and cross-fitted: of a method's two soups of halves, on the half each was fitted to "
        "and on that left out. "
        "Gain and fall of the loss: over the best single model, cross-fitted, with paired standard "
        "errors; p of the "
        "one-sided sign test. A soup ships where the p-value of gain or fall, corrected for all "
        "that was looked at, "
        "is at most one in twenty, and neither is worse; of several the simplest, unless one is "
        "better by that test."
    )
    return table(
        [head[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        about=about,
        marked=marked,
    )


def _ingredients(souped: Souped) -> str:
    singles = souped.facts.get("ingredients") or []
    rows = []
    for i, single in enumerate(singles):
        barrier = single.get("barrier") or {}
        height, soupable = barrier.get("height"), barrier.get("soupable")
        about = souped.names[i] if i < len(souped.names) else ""
        rows.append(
            (
                f"single model {i}",
                percent(single["valid_accuracy"]),
                number(single.get("valid_loss"), 3),
                ""
                if height is None or not math.isfinite(height)
                else f"{height:+.3f}{NO_BREAK}nats",
                "" if soupable is None else "yes" if soupable else "no",
                text(about),
            )
        )
    head = ("ingredient", "valid", "loss", "barrier to the best", "soupable", "about")
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    if not rows or len(kept) < 4:
        return ""
    about = (
        "Ingredients on all of validation. Barrier: loss half way to the best ingredient above the "
        "mean of both; one "
        "that is not soupable is left out of what is learned."
    )
    words = int(kept[-1] == len(head) - 1)
    return table(
        [head[i] for i in kept], [[row[i] for i in kept] for row in rows], about=about, words=words
    )
