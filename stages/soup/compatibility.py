"""Only models of one architecture, one start and the same records are averaged; others are refused,
both named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["check_alike"]

TRAINING = (
    "dropout",
    "lr",
    "weight_decay",
    "schedule",
    "epochs",
    "patience",
    "seed",
    "per_step",
    "device",
)
"""Of a model's configuration, what it was trained with: ingredients may differ in it."""
_UNKNOWN: tuple[Any, ...] = ("", None, {})


def check_alike(metadata: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """Compare what model files say of themselves; tensors are compared where they are read.

    Parameters
    ----------
    metadata : of each model: "config", "init_digest" of the weights it started from, "inputs", role
        -> digest of what it was trained on. The last two may be empty where a model was trained
        elsewhere.
    labels : how errors call the models.

    Returns
    -------
    What could not be compared, in words.

    Raises
    ------
    Conflict
        Two of them differ.
    """
    for what, wanted in (
        ("config", "one architecture"),
        (
            "init_digest",
            "one start: ingredients of different initialisations lie in different basins",
        ),
        ("inputs", "the same records"),
    ):
        known = [
            (label, found)
            for m, label in zip(metadata, labels, strict=True)
            if (found := _said(m, what))
        ]
        for label, found in known[1:]:
            first, expected = known[0]
            if found != expected:
                how = _difference(expected, found)
                raise Conflict(
                    f"soup: {first} and {label} differ in {what}: {how}; a soup needs {wanted}",
                    fix="soup only ingredients of one recipe and one train.seed",
                )
    words = []
    for what, name in (("init_digest", "start"), ("inputs", "training records")):
        if silent := sum(not _said(m, what) for m in metadata):
            words.append(
                f"{silent} of {len(metadata)} ingredients do not say their {name}: not compared"
            )
    return words


def _said(metadata: Mapping[str, Any], what: str) -> Any:
    found = metadata.get(what)
    if what == "config" and found is not None:
        return {name: value for name, value in found.items() if name not in TRAINING}
    return None if found in _UNKNOWN else found


def _difference(expected: Any, found: Any) -> str:
    """What differs, and only that."""
    if not isinstance(expected, dict):
        return f"{expected} against {found}"
    names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    return ", ".join(f"{n} {expected.get(n)} against {found.get(n)}" for n in names)
