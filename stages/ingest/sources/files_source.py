"""A `files:` source is a folder of files with known names; a name that is nearly one of them is
never passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.dialect import decompressed
from stockpot.stages.ingest.fields import PARTS
from stockpot.stages.ingest.member import read_header
from stockpot.stages.ingest.source import Source
from stockpot.stages.ingest.sources.folder import FORMS, kinds, roles, scan

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["counts", "describe"]

_LOAD_BYTES = 64 << 20
_CLASSES = 256
_SAMPLE_BYTES = 1 << 16
_UNPACKED = 6  # bytes of ids and names that a byte of gzip gives, rather too many


def describe(source: str, rest: str) -> Source:
    """The source of `files:DIR`.

    Raises
    ------
    BadInput
        There is no such folder, edges or labels are missing or stand there twice, part of a split
        is missing, a file has a name that is not understood, or a table has no readable header.
    """
    root = Path(rest).absolute()
    if not root.is_dir():
        raise _bad(source, f"expected a folder at {root}, found none", "correct dataset.source")
    files, left_out = scan(source, root)
    found = roles(files)
    for stem in ("edges", "labels"):
        if stem not in found:
            choices = ",".join(suffix[1:] for suffix in FORMS[stem])
            text = f"{root}: expected {stem}.{{{choices}}}, found none"
            raise _bad(source, text, f"write {stem}; data/README.md says how")
    reading, index = _reading({role: Path(files[name]) for role, name in found.items()})
    return Source(
        source, "files", "", str(root), files, reading=reading, left_out=(*left_out, *index)
    )


def _reading(paths: Mapping[str, Path]) -> tuple[str, list[str]]:
    """What is read otherwise than by earlier versions, and columns that are left out."""
    from stockpot.stages.ingest.sources.files import edge_table
    from stockpot.stages.ingest.table_files import Table

    reading, left_out = [], []
    tables = {
        role: path for role, path in paths.items() if path.suffix not in (".npy", ".npz", ".txt")
    }
    for role in ("edges", "labels", "features"):
        if role not in tables:
            continue
        table = edge_table(tables[role]) if role == "edges" else Table(tables[role])
        left_out += [f"{tables[role].name}: {name}" for name in table.index]
        if role == "features" and table.index:
            reading.append("features without index")
        if table.trims and (role == "labels" or table.kind(table.columns[0]) == "strings"):
            reading.append(f"{role} trimmed")
    return ";".join(reading), left_out


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
    names = roles(source.files)
    paths = {role: Path(source.files[name]) for role, name in names.items()}
    edges, weighted = _edges(paths["edges"])
    estimated = {"num_edges_stored"} if _is_csv(paths["edges"]) else set()
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
    splits, published = _splits(
        {part: paths[part] for part in PARTS if part in paths}, kinds(names), nodes
    )
    return {
        "num_nodes": nodes,
        "num_edges_stored": edges,
        "num_classes": classes,
        "labelled": nodes if labelled is None else labelled,
        "splits": splits or None,
        "published_splits": published,
        "weighted": weighted,
        **_features(paths.get("features"), nodes),
        "estimated": sorted(estimated),
    }


def _splits(
    paths: Mapping[str, Path], masks: Mapping[str, str], nodes: int
) -> tuple[dict[str, int], int]:
    """Most nodes of each part, and the number of published splits; of text from its size."""
    sizes, published = {}, int(bool(paths))
    for part, path in paths.items():
        if path.suffix != ".npy":
            sizes[part] = min(nodes, _rows(path))
            continue
        with path.open("rb") as file:
            shape, _, dtype = read_header(file)
        if masks[part] == "mask" or dtype.kind == "b":
            sizes[part], columns = nodes, max(1, int(np.prod(shape)) // nodes)
            published = max(published, columns)
        else:
            sizes[part] = shape[0]
    return sizes, published


def _is_csv(path: Path) -> bool:
    return path.name.endswith((".csv", ".csv.gz", ".txt"))


def _edges(path: Path) -> tuple[int, bool]:
    if path.suffix == ".npy":
        return _shape(path)[1], False
    from stockpot.stages.ingest.sources.files import edge_table

    table = edge_table(path)
    rows = _rows(path)
    return rows, "weight" in table.columns


def _rows(path: Path) -> int:
    from stockpot.stages.ingest.table_files import Table

    if path.suffix == ".npy":
        return _shape(path)[0]
    if not _is_csv(path):
        return Table(path).rows()
    sample, size = decompressed(path, _SAMPLE_BYTES), path.stat().st_size
    if path.suffix == ".gz":
        size *= _UNPACKED if len(sample) == _SAMPLE_BYTES else 0
    return max(1, round(max(size, len(sample)) * max(1, sample.count(b"\n")) / max(1, len(sample))))


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
        from stockpot.stages.ingest.table_files import Table

        columns = len([name for name in Table(path).columns if name != "id"])
    return {"features": "dense", "num_features": columns, "x_nnz": nodes * columns, "binary": False}


def _shape(path: Path) -> tuple[int, ...]:
    with path.open("rb") as file:
        return read_header(file)[0]
