"""What a run is worth, in words: what its soup gained, what a training by sampled batches comes to
in its seconds, and what to try next.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.built import Built

__all__ = [
    "gain_words",
    "next_words",
    "sampled_training",
    "sampled_words",
    "thread_seconds",
    "verdict",
]

AFTER = ("reach", "student", "infer", "codeloss")
"""Stages that begin once the soup is there, and are no part of what training takes."""
LATE = 0.9
"""Share of a training from which its best epoch is one of the last."""


@cache
def sampled_training() -> Mapping[str, Any]:
    """Stored figures of trainings by sampled batches, as `tests.bench.sampled_training` wrote
    them.
    """
    text = Path(__file__).with_name("sampled_training.json").read_text("utf-8")
    stored: dict[str, Any] = json.loads(text)
    return stored


def verdict(
    summary: Mapping[str, Any],
    source: str,
    seconds: float,
    stored: Mapping[str, Any] | None = None,
) -> list[str]:
    """Sentences; none where a run has inferred nothing.

    Parameters
    ----------
    source : `dataset.source` of the recipe.
    seconds : of `thread_seconds`.
    stored : figures of `sampled_training`; None: those that stockpot comes with.
    """
    if not summary["train"] or not summary["infer"]:
        return []
    sentences = [
        gain_words(summary["infer"]),
        sampled_words(summary, source, seconds, stored or sampled_training()),
        next_words(summary),
    ]
    return [line for line in sentences if line]


def thread_seconds(built: Sequence[Built]) -> float:
    """Seconds of all stages up to the soup, times the threads that each had: at least what the run
    took of all threads, also where artifacts were found in the store.
    """
    return float(
        sum(
            b.manifest["seconds"] * (b.manifest.get("threads") or 1)
            for b in built
            if b.node.stage not in AFTER
        )
    )


def sampled_words(
    summary: Mapping[str, Any], source: str, seconds: float, stored: Mapping[str, Any]
) -> str:
    """What the stored trainings come to in the seconds of this run; empty where none is of its data
    set and split.
    """
    data, accuracy = summary["dataset"], summary["infer"]["test_accuracy"]
    sizes = [(data["splits"] or {}).get(name) for name in ("train", "valid", "test")]
    if source != stored["source"] or sizes != stored["splits"] or accuracy is None:
        return ""
    trainings = sorted(stored["trainings"], key=lambda one: one["seconds"])
    in_time = [one for one in trainings if one["seconds"] <= seconds]
    best = max(in_time or trainings[:1], key=lambda one: one["valid"])
    longest = trainings[-1]
    more = (
        f" ({longest['seconds']:.0f} s: {100 * longest['test']:.2f} %)"
        if longest is not best
        else ", the longest that was measured"
    )
    return (
        f"{stored['peer']} ({stored['about']}) came to {100 * best['test']:.2f} % in "
        f"{best['seconds']:.0f} s of one thread of {stored['cpu']}{more}; this run to "
        f"{100 * accuracy:.2f} % in at most {seconds:.0f} s of all its threads, "
        f"preprocessing and all models included. Stored figures; they are repeated by: "
        f"{stored['command']}"
    )


def gain_words(infer: Mapping[str, Any]) -> str:
    """What the chosen soup gained over the best single model, on the outputs asked for, in words;
    empty where nothing was compared.
    """
    gain = infer.get("gain")
    if gain is None:
        return ""
    points, error = 100 * gain["accuracy"], 100 * gain["error"]
    number = str(gain["over"]).partition(":")[2]
    side = "better" if points >= 0 else "worse"
    return (
        f"the soup is {abs(points):.2f} ± {error:.2f} points {side} on them than single model "
        f"{number}, the best on validation (standard error, paired)"
    )


def next_words(summary: Mapping[str, Any]) -> str:
    """What may be worth trying next, by what the run did not do; empty where it did all of it."""
    train, stages = summary["train"], summary["stages"]
    infer, soup = summary["infer"], summary["soup"] or {}
    tries = []
    late = [
        one
        for one in train["ingredients"]
        if one.get("best_epoch") is not None and one["best_epoch"] >= LATE * one["last_epoch"]
    ]
    if 2 * len(late) > len(train["ingredients"]):
        tries.append(
            "longer trainings, as validation was best at the last epochs (train.epochs, "
            "train.warmup)"
        )
    if summary["dataset"]["num_features"] and not stages.get("propagate"):
        tries.append("--set features.propagate=auto, rows that know their neighbours'")
    if len(train["ingredients"]) == 1:
        tries.append("--set train.ingredients=4 --set train.warmup=…, for a soup")
    elif soup.get("chosen") == "best":
        tries.append("--set train.warmup=…, epochs that ingredients share, as no soup was better")
    if (infer.get("sets") or {}).get("by") == "training":
        tries.append("--set infer.top_k=auto")
    return f"to try next: {'; '.join(tries)}" if tries else ""
