"""A `dataset.source` names exactly one file that is there, or the error says what it should have named."""

from __future__ import annotations

import difflib
from pathlib import Path

from stages.errors import BadInput

__all__ = ["EMBEDDED", "source_path"]

EMBEDDED = Path(__file__).parents[2] / "data" / "wordnet.npz"
"""The graph that comes with stockpot."""

_KINDS = ("wordnet", "npz")
_LATER = ("files", "ogb", "pyg", "synthetic")
_FIX = "set dataset.source to wordnet or npz:PATH"


def source_path(source: str) -> Path:
    """File a `dataset.source` names; a relative `npz:` path is relative to the working directory.

    Raises
    ------
    BadInput
        The source is of a kind this version does not read, or unknown (names the nearest), or its file is missing.
    """
    kind, _, rest = source.partition(":")
    if source == "wordnet":
        path = EMBEDDED
    elif kind == "npz" and rest:
        path = Path(rest)
    elif kind in _LATER:
        raise BadInput(f"dataset.source {source}: {kind}: is not available in this version", fix=_FIX)
    else:
        near = difflib.get_close_matches(kind, (*_KINDS, *_LATER), n=1)
        nearest = f"; nearest is {near[0]}" if near and near[0] != source else ""
        raise BadInput(f'dataset.source: expected "wordnet" or "npz:PATH", found "{source}"{nearest}', fix=_FIX)
    if not path.is_file():
        raise BadInput(f"dataset.source {source}: expected a file at {path.absolute()}, found none", fix=_FIX)
    return path
