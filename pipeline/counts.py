"""Counts of a data set come from names, headers and metadata alone, so that planning costs nothing.

Facts by name: `num_nodes`, `num_edges_stored`, `num_classes`, `labelled`, `splits` (nodes by name) or None,
`published_splits`, `weighted`, `features` ("dense", "sparse", "none"), `num_features`, `x_nnz`, `binary`,
`features_loaded_whole` where rows cannot be read in blocks, and `estimated`, the names of those that are not exact.
"""

from __future__ import annotations

import zipfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.ingest.member import read_header

if TYPE_CHECKING:
    from stages.ingest.source import Source

__all__ = ["source_counts"]

_LOAD_BYTES = 64 << 20  # labels and masks up to this size are read for their counts
_CLASSES = 256


def source_counts(source: Source) -> dict[str, Any] | None:
    """Counts of a data set, None where they cannot be told before it is read: reading it will say what is wrong."""
    if source.kind == "npz":
        return _npz_counts(Path(source.files["source"]))
    found = import_module(f"stages.ingest.{source.kind}_source").counts(source)
    return None if found is None else dict(found)


def _npz_counts(path: Path) -> dict[str, Any] | None:
    """Counts of an npz data set from its members' headers; labels and masks are read where they are small.

    Returns
    -------
    None where it is no npz of the documented members: reading it will say what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _counts(archive)
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, EOFError):
        return None


def _counts(archive: zipfile.ZipFile) -> dict[str, Any]:
    names = {name.removesuffix(".npy") for name in archive.namelist()}
    edges = _shape(archive, "edge_index")[1]
    nodes = int(_load(archive, "num_nodes")) if "num_nodes" in names else _shape(archive, "y")[0]
    found: dict[str, Any] = {"num_nodes": nodes, "num_edges_stored": edges, "num_classes": _CLASSES, "splits": None}
    found |= {"published_splits": 0, "weighted": "edge_weight" in names}
    if "x" in names:
        shape, column_major, _ = _header(archive, "x")
        found |= {"features": "dense", "num_features": shape[1], "x_nnz": shape[0] * shape[1], "binary": False}
        found["features_loaded_whole"] = column_major
    elif "x_shape" in names:
        columns = int(_load(archive, "x_shape")[1])
        nnz = _shape(archive, "x_indices")[0]
        found |= {"features": "sparse", "num_features": columns, "x_nnz": nnz, "binary": True}
    else:
        found |= {"features": "none", "num_features": 0, "x_nnz": 0, "binary": False}
    if "y" in names and _bytes(archive, "y") <= _LOAD_BYTES:
        y = _load(archive, "y")
        found["num_classes"] = max(1, int(y.max(initial=0)) + 1) if y.dtype.kind in "iu" else _CLASSES
        found["labelled"] = int((y >= 0).sum()) if y.dtype.kind in "iu" else nodes
    if "train_idx" in names:
        found["splits"] = {s: _shape(archive, f"{s}_idx")[-1] for s in ("train", "valid", "test")}
        found["published_splits"] = 1
    elif "train_masks" in names:
        found["splits"] = {s: _masked(archive, f"{s}_masks", nodes) for s in ("train", "valid", "test")}
        masks = _shape(archive, "train_masks")
        found["published_splits"] = masks[0] if len(masks) == 2 else 1
    return found


def _masked(archive: zipfile.ZipFile, name: str, nodes: int) -> int:
    if _bytes(archive, name) > _LOAD_BYTES:
        return nodes
    return int(_load(archive, name).reshape(-1, nodes).sum(axis=1).max())


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    return _header(archive, name)[0]


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(f"{name}.npy") as member:
        return read_header(member)


def _bytes(archive: zipfile.ZipFile, name: str) -> int:
    return archive.getinfo(f"{name}.npy").file_size


def _load(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)
