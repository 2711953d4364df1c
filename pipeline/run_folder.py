"""A file in a run's folder is the old text or the new one, never a mix; `run.json` says what other programs open."""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING, Any

from stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pipeline.recipe import Recipe
    from pipeline.summary import Built

__all__ = ["RUN_FORMAT", "dump", "run_document", "write_atomically"]

RUN_FORMAT = 1


def write_atomically(path: Path, text: str) -> None:
    """Readers of `path` see the old text or the new one, never a mix.

    Raises
    ------
    BadInput
        The folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        fix = "free some space or choose another folder with --runs DIR, then run the same command again"
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}", fix=fix) from error


def run_document(recipe: Recipe, store: Path, built: Iterable[Built]) -> dict[str, Any]:
    """What other programs open a run by: store, resolved recipe, and key and digest of every artifact."""
    return {
        "format": RUN_FORMAT,
        "name": recipe.name,
        "store": str(store.absolute()),
        "recipe": recipe.tables(),
        "artifacts": {b.node.id: {"stage": b.node.stage, "key": b.key, "digest": b.digest} for b in built},
    }


def dump(document: Mapping[str, Any]) -> str:
    """JSON as it is written to files: readable, NaN refused."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
