"""Counts of a data set come from names, headers and metadata alone, so that planning costs nothing.

Facts by name: `num_nodes`, `num_edges_stored`, `num_classes`, `labelled`, `splits` (nodes by name)
or None, `published_splits`, `weighted`, `features` ("dense", "sparse", "none"), `num_features`,
`x_nnz`, `binary`, `features_loaded_whole` where rows cannot be read in blocks, and `estimated`, the
names of those that are not exact.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.ingest.labels import read_splits
from stockpot.stages.ingest.members import open_npz

if TYPE_CHECKING:
    from stockpot.stages.ingest.members import Members
    from stockpot.stages.ingest.source import Source

__all__ = ["source_counts"]

_LOAD_BYTES = 64 << 20  # labels and masks up to this size are read for their counts
_CLASSES = 256


def source_counts(source: Source) -> dict[str, Any] | None:
    """Counts of a data set, None where they cannot be told before it is read: reading it will say
    what is wrong.
    """
    if source.kind == "npz":
        return _npz_counts(Path(source.files["source"]))
    found = import_module(f"stockpot.stages.ingest.sources.{source.kind}_source").counts(source)
    return None if found is None else dict(found)


def _npz_counts(path: Path) -> dict[str, Any] | None:
    """Counts of an npz data set from its members' headers; labels and masks are read where they are
    small.

    Returns
    -------
    None where it is no npz of the documented members: reading it will say what is wrong.
    """
    try:
        with open_npz(path) as members:
            return _counts(members)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _counts(members: Members) -> dict[str, Any]:
    edges = members.stream("edge_index").shape[1]
    nodes = (
        int(members["num_nodes"].ravel()[0])
        if "num_nodes" in members
        else members.stream("y").shape[0]
    )
    found: dict[str, Any] = {
        "num_nodes": nodes,
        "num_edges_stored": edges,
        "num_classes": _CLASSES,
        "splits": None,
    }
    found |= {"published_splits": 0, "weighted": "edge_weight" in members}
    if "x" in members:
        x = members.stream("x")
        found |= {"features": "dense", "num_features": x.shape[1], "x_nnz": x.size, "binary": False}
        found["features_loaded_whole"] = x.fortran
    elif "x_shape" in members:
        columns = int(members["x_shape"][1])
        nnz = members.stream("x_indices").size
        found |= {"features": "sparse", "num_features": columns, "x_nnz": nnz, "binary": True}
    else:
        found |= {"features": "none", "num_features": 0, "x_nnz": 0, "binary": False}
    if "y" in members and _bytes(members, "y") <= _LOAD_BYTES:
        y = members["y"]
        found["num_classes"] = (
            max(1, int(y.max(initial=0)) + 1) if y.dtype.kind in "iu" else _CLASSES
        )
        found["labelled"] = int((y >= 0).sum()) if y.dtype.kind in "iu" else nodes
    if names := members.fields.splits:
        if all(_bytes(members, name) <= _LOAD_BYTES for name in names.values()):
            splits = read_splits(members, nodes)
            found["splits"] = {part: max(len(split[part]) for split in splits) for part in names}
            found["published_splits"] = len(splits)
        else:
            found["splits"] = {
                part: min(nodes, members.stream(name).size) for part, name in names.items()
            }
            found["published_splits"] = max(
                1, *(members.stream(name).size // nodes for name in names.values())
            )
    return found


def _bytes(members: Members, name: str) -> int:
    stream = members.stream(name)
    return stream.size * stream.dtype.itemsize
