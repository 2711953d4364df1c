"""What made the run: its command, what the recipe changes, what `auto` became, and the machines and
software.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stockpot.planning.recipe import KEYS, Recipe
from stockpot.planning.registry import STAGES
from stockpot.stages.show.html import section, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.built import Built

__all__ = ["changed", "origin_sections", "resolved"]

AUTO = "auto"


def changed(recipe: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value, default) of every key the recipe sets to something else."""
    values, defaults = recipe.values(), Recipe("defaults").values()
    return [(key, values[key], defaults[key]) for key in KEYS if values[key] != defaults[key]]


def resolved(recipe: Recipe, built: Sequence[Built]) -> list[tuple[str, str, Any]]:
    """(key, stage, value) of every "auto" that a stage's parameters hold under the key's own
    name.
    """
    values = recipe.values()
    found: dict[tuple[str, str], Any] = {}
    for key in (key for key in KEYS if values[key] == AUTO):
        for b in built:
            params = b.manifest.get("params") or {}
            name = key.rsplit(".", 1)[-1]
            if key in STAGES[b.node.stage].reads and params.get(name, AUTO) not in (AUTO, ""):
                found.setdefault((key, b.node.id), params[name])
    return [(key, where, value) for (key, where), value in found.items()]


def origin_sections(
    recipe: Recipe, built: Sequence[Built], command: str, machine: Mapping[str, str]
) -> list[str]:
    """Recipe, and machine and software, as sections."""
    made = f"<pre><code>{text(command)}</code></pre>" if command else ""
    return [
        section("Recipe", made, _changed(recipe), _resolved(recipe, built)),
        section("Machine and software", _machines(built, machine), _software(built)),
    ]


def _value(value: Any) -> str:
    return f"<code>{text(value if isinstance(value, str) else json.dumps(value))}</code>"


def _changed(recipe: Recipe) -> str:
    rows = [
        (text(key), _value(new), _value(old), text(KEYS[key].about))
        for key, new, old in changed(recipe)
    ]
    if not rows:
        return "<p>Every key has its default.</p>"
    return table(
        ("key", "here", "default", "meaning"),
        rows,
        about="Keys that differ from their defaults.",
        words=3,
    )


def _resolved(recipe: Recipe, built: Sequence[Built]) -> str:
    together: dict[tuple[str, str], list[str]] = {}
    for key, where, value in resolved(recipe, built):
        together.setdefault((key, _value(value)), []).append(where)
    rows = [
        (text(key), value, text(", ".join(places))) for (key, value), places in together.items()
    ]
    return (
        table(("key", "auto is", "in"), rows, about="What “auto” became.", words=2) if rows else ""
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _machines(built: Sequence[Built], machine: Mapping[str, str]) -> str:
    """Where and when the artifacts were built; this machine, which wrote the page."""
    groups: dict[tuple[str, str, str], list[Built]] = {}
    for b in built:
        place = tuple(str(b.manifest.get(name, "?")) for name in ("host", "device", "threads"))
        groups.setdefault(place, []).append(b)  # type: ignore[arg-type]
    rows = []
    for (host, device, threads), those in groups.items():
        started = [b.manifest["started"] for b in those if "started" in b.manifest]
        when = f"{_time(min(started))} to {_time(max(started))}" if started else "?"
        rows.append((text(host), text(device), text(threads), str(len(those)), text(when)))
    head = ("host", "device", "threads a task", "artifacts", "started")
    where = (
        table(head, rows, about="Where the artifacts were built, now or earlier.", words=1)
        if rows
        else ""
    )
    words = ", ".join(f"{text(name)} {text(value)}" for name, value in machine.items())
    return where + (f"<p>This page was written on: {words}.</p>" if words else "")


def _software(built: Sequence[Built]) -> str:
    found: dict[str, dict[str, list[str]]] = {}
    for b in built:
        for name, version in (b.manifest.get("software") or {}).items():
            found.setdefault(name, {}).setdefault(version, []).append(b.node.id)
    rows = []
    for name, versions in sorted(found.items()):
        for version, where in versions.items():
            rows.append(
                (text(name), text(version), "" if len(versions) == 1 else text(", ".join(where)))
            )
    if not rows:
        return ""
    several = any(len(versions) > 1 for versions in found.values())
    head, words = (
        (("software", "version", "artifacts"), 2) if several else (("software", "version"), 1)
    )
    about = "Software that built the artifacts."
    return table(head, [row[: len(head)] for row in rows], about=about, words=words)
