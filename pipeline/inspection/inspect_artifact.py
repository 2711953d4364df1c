"""A whole artifact as people read it: what its manifest says of facts, parameters, parents, origin
and files.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stockpot.planning.registry import STAGES
from stockpot.stages.show.plain import human_bytes, table
from stockpot.store.arrays import METADATA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.inspection.target import Target

__all__ = ["artifact_document", "artifact_text"]

ORIGIN = (
    "started",
    "seconds",
    "peak_bytes",
    "bytes_written",
    "threads",
    "device",
    "host",
    "software",
)
LONGEST = 100  # characters of a value


def artifact_document(target: Target) -> dict[str, Any]:
    """JSON of one artifact, from its manifest; arrays are listed with their types and shapes."""
    manifest = target.reader.manifest
    files: Mapping[str, Mapping[str, Any]] = manifest["files"]
    return {
        "artifact": target.name,
        **{name: manifest[name] for name in ("stage", "version", "format", "key", "digest")},
        "folder": str(target.reader.root),
        "bytes": sum(file["size"] for file in files.values()),
        "params": manifest["params"],
        "parents": manifest["parents"],
        "facts": manifest["facts"],
        "judged": None if target.judged is None else dict(target.judged),
        **{name: manifest[name] for name in ORIGIN},
        "projected_bytes": target.projected_bytes,
        "notes": manifest["notes"],
        "arrays": _arrays(target, files),
        "files": files,
    }


def _arrays(target: Target, files: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in sorted(files):
        if not name.endswith(f"/{METADATA}"):
            continue
        array = name.removesuffix(f"/{METADATA}")
        about = json.loads(target.reader.path(name).read_bytes())
        size = sum(file["size"] for path, file in files.items() if path.startswith(f"{array}/"))
        found[array] = {"dtype": about["data_type"], "shape": about["shape"], "bytes": size}
    return found


def artifact_text(document: dict[str, Any]) -> str:
    """The same as tables; a value too long for a line is cut, `--json` has it whole."""
    d = document
    started = datetime.fromtimestamp(d["started"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    memory = human_bytes(d["peak_bytes"])
    if d["projected_bytes"] is not None:
        memory += f" of {human_bytes(d['projected_bytes'])} projected"
    head = [
        ["artifact", d["artifact"]],
        ["stage", f"{d['stage']}, version {d['version']}, format {d['format']}"],
        ["key", d["key"]],
        ["digest", d["digest"]],
        ["folder", d["folder"]],
        ["size", f"{human_bytes(d['bytes'])} in {len(d['files'])} files"],
        [
            "built",
            (
                f"{started} in {d['seconds']:.1f} s on {d['host']}, {d['device']}, threads a task: "
                f"{d['threads']}"
            ),
        ],
        ["memory", f"{memory}, above the worker"],
        [
            "software",
            ", ".join(f"{name} {version}" for name, version in sorted(d["software"].items())),
        ],
    ]
    parents = [[p["role"], p["stage"], p["key"], p["digest"]] for p in d["parents"]]
    parts = [
        "\n".join(f"{name:<10}{text}" for name, text in head),
        _pairs("parameters", d["params"]),
        table(("input", "stage", "key", "digest"), parents) if parents else "inputs\n  none",
        _pairs("facts", _without_table(d["facts"])),
        *([_pairs("chosen by the judge", _without_table(d["judged"]))] if d["judged"] else []),
        *_told(d),
        _files(d),
    ]
    return "\n\n".join(parts)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _pairs(title: str, values: Mapping[str, Any]) -> str:
    width = max((len(name) for name in values), default=0)
    lines = [f"  {name:<{width}}  {_value(value)}" for name, value in values.items()]
    return "\n".join([title, *(lines or ["  none"])])


def _without_table(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "rate"}


def _told(d: dict[str, Any]) -> list[str]:
    """What the stage itself shows of its artifact; nothing of a stage of another version."""
    stage = STAGES.get(d["stage"])
    return [] if stage is None else list(stage.reporting.inspect(d["facts"], d["judged"] or {}))


def _files(d: dict[str, Any]) -> str:
    rows: list[Sequence[str]] = []
    for name, about in d["arrays"].items():
        shape = " x ".join(f"{n:,}" for n in about["shape"])
        rows.append([name, f"{about['dtype']} array, {shape}", human_bytes(about["bytes"]), ""])
    for name, file in d["files"].items():
        if not any(name.startswith(f"{array}/") for array in d["arrays"]):
            rows.append([name, "file", human_bytes(file["size"]), file["digest"]])
    return table(("payload", "what", "size", "digest"), rows, right=(2,))
