"""A `files:` source is a folder of files with known names; a name that is nearly one of them is never passed over."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.ingest.member import read_header
from stages.ingest.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["counts", "describe"]

SPLITS = ("train", "valid", "test")
_FORMS = {
    "edges": (".parquet", ".csv", ".arrow", ".npy"),
    "labels": (".npy", ".parquet", ".csv"),
    "features": (".npy", ".npz", ".parquet"),
}
_SUFFIXES = {suffix for forms in _FORMS.values() for suffix in forms}
_LIKE = 0.7  # similarity from which a name is taken for a slip
_LOAD_BYTES = 64 << 20
_CLASSES = 256
_SAMPLE_BYTES = 1 << 16


def describe(source: str, rest: str) -> Source:
    """The source of `files:DIR`.

    Raises
    ------
    BadInput
        There is no such folder, edges or labels are missing or stand there twice, part of a split is missing, or a
        file has a name that is nearly a known one.
    """
    root = Path(rest).absolute()
    if not root.is_dir():
        raise _bad(source, f"expected a folder at {root}, found none", "correct dataset.source")
    files: dict[str, str] = {}
    for stem, forms in _FORMS.items():
        found = [f"{stem}{suffix}" for suffix in forms if (root / f"{stem}{suffix}").is_file()]
        if len(found) > 1:
            raise _bad(source, f"{root}: expected {stem} once, found {' and '.join(found)}", "remove all but one")
        files |= {name: str(root / name) for name in found}
    _check_names(source, root, list(_FORMS), {*files, "split"})
    for stem in ("edges", "labels"):
        if not any(name.startswith(f"{stem}.") for name in files):
            forms_of = ",".join(suffix[1:] for suffix in _FORMS[stem])
            raise _bad(
                source, f"{root}: expected {stem}.{{{forms_of}}}, found none", f"write {stem}; data/README.md says how"
            )
    splits = {f"split/{part}.npy": root / "split" / f"{part}.npy" for part in SPLITS}
    there = [name for name, path in splits.items() if path.is_file()]
    if (root / "split").is_dir():
        _check_names(source, root / "split", list(SPLITS), {f"{part}.npy" for part in SPLITS})
    if there and len(there) < len(SPLITS):
        missing = next(name for name in splits if name not in there)
        raise _bad(source, f"{root}: expected {missing} beside {there[0]}, found none", f"write {missing}")
    files |= {name: str(splits[name]) for name in there}
    return Source(source, "files", "", str(root), files)


def _check_names(source: str, folder: Path, stems: list[str], known: set[str]) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.name in known or (entry.is_file() and entry.suffix not in _SUFFIXES):
            continue
        nearest = difflib.get_close_matches(entry.stem, [*stems, "split"], n=1, cutoff=_LIKE)
        if nearest or folder.name == "split":
            like = (nearest or difflib.get_close_matches(entry.stem, stems, n=1, cutoff=0.0))[0]
            raise _bad(
                source,
                f"{entry}: expected a known name, found an unknown one; nearest is {like}",
                f"rename or remove {entry.name}; data/README.md lists the names",
            )


def _bad(source: str, text: str, fix: str) -> BadInput:
    return BadInput(f"dataset.source {source}: {text}", fix=fix)


def counts(source: Source) -> Mapping[str, Any] | None:
    """Counts from headers and metadata; of csv from its size, marked as estimated."""
    import pyarrow as pa

    try:
        return _counts(source)
    except (OSError, ValueError, KeyError, IndexError, EOFError, pa.ArrowException):
        return None  # reading it says what is wrong


def _counts(source: Source) -> Mapping[str, Any]:
    paths = {name.rpartition(".")[0]: Path(path) for name, path in source.files.items()}
    edges, weighted = _edges(paths["edges"])
    estimated = {"num_edges_stored"} if paths["edges"].suffix == ".csv" else set()
    labels, classes, labelled = paths["labels"], _CLASSES, None
    if labels.suffix == ".npy":
        nodes = _shape(labels)[0]
        if labels.stat().st_size <= _LOAD_BYTES:
            y = np.load(labels, allow_pickle=False)
            labelled = int((y >= 0).sum())
            classes = max(1, int(np.nan_to_num(y, nan=-1).max(initial=0)) + 1)
    else:  # nodes have names: there may be more of them in the edges
        nodes = max(_rows(labels), _rows(paths["features"]) if "features" in paths else 0)
        estimated |= {"num_nodes"}
    splits = {part: _shape(paths[f"split/{part}"])[0] for part in SPLITS if f"split/{part}" in paths}
    return {
        "num_nodes": nodes,
        "num_edges_stored": edges,
        "num_classes": classes,
        "labelled": nodes if labelled is None else labelled,
        "splits": splits or None,
        "published_splits": int(bool(splits)),
        "weighted": weighted,
        **_features(paths.get("features"), nodes),
        "estimated": sorted(estimated),
    }


def _edges(path: Path) -> tuple[int, bool]:
    if path.suffix == ".npy":
        return _shape(path)[1], False
    from stages.ingest.files import edge_table

    table = edge_table(path)
    rows = _rows(path)
    return rows, "weight" in table.columns


def _rows(path: Path) -> int:
    from stages.ingest.tables import Table

    if path.suffix == ".npy":
        return _shape(path)[0]
    if path.suffix != ".csv":
        return Table(path).rows()
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    return max(1, round(path.stat().st_size * max(1, sample.count(b"\n")) / max(1, len(sample))))


def _features(path: Path | None, nodes: int) -> dict[str, Any]:
    if path is None:
        return {"features": "none", "num_features": 0, "x_nnz": 0, "binary": False}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            columns = int(file["shape"][1])
            with file.zip.open("indices.npy") as member:
                nnz = read_header(member)[0][0]
        return {"features": "sparse", "num_features": columns, "x_nnz": nnz, "binary": True}
    if path.suffix == ".npy":
        columns = _shape(path)[1]
    else:
        from stages.ingest.tables import Table

        columns = len([name for name in Table(path).columns if name != "id"])
    return {"features": "dense", "num_features": columns, "x_nnz": nodes * columns, "binary": False}


def _shape(path: Path) -> tuple[int, ...]:
    with path.open("rb") as file:
        return read_header(file)[0]
