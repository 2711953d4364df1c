"""A file in a run's folder is the old text or the new one, never a mix; `run.json` says what other
programs open.

`run.json` holds a check over all else in it, so that a flipped bit never changes what is opened, or
how.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.replace import replacing
from stockpot.store import fs
from stockpot.store.digests import bytes_digest
from stockpot.store.keys import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RUN_FORMAT", "dump", "read_run", "run_document", "write_atomically"]

RUN_FORMAT = 1
_FIELDS = frozenset({"format", "name", "store", "recipe", "artifacts"})
_REBUILD = "stockpot run RECIPE writes it anew"


def write_atomically(path: Path, text: str) -> None:
    """Readers of `path` see the old text or the new one, never a mix.

    Raises
    ------
    BadInput
        The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        fix = (
            "free some space or choose another folder with --runs DIR, then run the same command "
            "again"
        )
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}", fix=fix) from error


def run_document(
    name: str, tables: Mapping[str, Any], store: Path, artifacts: Mapping[str, tuple[str, str, str]]
) -> dict[str, Any]:
    """What other programs open a run by.

    Parameters
    ----------
    name, tables : of the resolved recipe.
    store : its root.
    artifacts : (stage, key, digest) of every artifact, by the name of its node.
    """
    fields = ("stage", "key", "digest")
    document = {
        "format": RUN_FORMAT,
        "name": name,
        "store": str(store.absolute()),
        "recipe": dict(tables),
        "artifacts": {
            node: dict(zip(fields, found, strict=True)) for node, found in artifacts.items()
        },
    }
    return {**document, "check": _check(document)}


def _check(document: Mapping[str, Any]) -> str:
    """Digest of all of a run's document but this."""
    return bytes_digest(canonical(["stockpot-run", document]))


def read_run(folder: Path) -> dict[str, Any]:
    """The document of the run in `folder`.

    One without a check was written by an early version, and is read as it is.

    Raises
    ------
    BadInput
        There is none, or it is not the document of a run.
    Corrupt
        Its content does not match its check.
    """
    path = folder / "run.json"
    try:
        run = json.loads(fs.read(path))
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read: {error.strerror or error}", fix=_REBUILD
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path}: expected JSON, found something else ({error})", fix=_REBUILD
        ) from error
    if not isinstance(run, dict):
        raise BadInput(
            f"{path}: expected the document of a run, found {type(run).__name__}", fix=_REBUILD
        )
    found = run.pop("check", None)
    try:
        same = found is None or found == _check(run)
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same:
        raise Corrupt(f"{path}: its content does not match its check", fix=_REBUILD)
    if run.get("format", RUN_FORMAT) != RUN_FORMAT:
        raise BadInput(
            f"{path}: expected format {RUN_FORMAT}, found {run['format']!r}",
            fix="use the stockpot that wrote it",
        )
    if (wrong := _wrong(run)) is not None:
        raise BadInput(f"{path}: expected the document of a run, found one {wrong}", fix=_REBUILD)
    return run


def _wrong(run: Mapping[str, Any]) -> str | None:
    """What makes this no document of a run, None where it is one."""
    if not {"store", "artifacts"} <= run.keys():
        return "without store and artifacts"
    if unknown := sorted(run.keys() - _FIELDS):
        return f"with unknown fields: {', '.join(unknown)}"
    if not isinstance(run["store"], str) or "\0" in run["store"]:
        return "whose store is no path"
    recipe, artifacts = run.get("recipe", {}), run["artifacts"]
    if not isinstance(recipe, dict) or not all(
        isinstance(table, dict) for table in recipe.values()
    ):
        return "whose recipe has no tables"
    if not isinstance(artifacts, dict):
        return "whose artifacts are no table"
    for name, entry in artifacts.items():
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(what), str) for what in ("stage", "key")
        ):
            return f"whose artifact {name} has no stage and key"
    return None


def dump(document: Mapping[str, Any]) -> str:
    """JSON as it is written to files: readable, NaN refused."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
