"""An `ogb:` source is raw files in OGB's own layout; what is missing is named, with the command
that fetches it.

Of ogb's package only parts are used (`ogb_package.py`): its loader asks questions with
`input()`, and its second load fails on today's torch defaults.
"""

from __future__ import annotations

import difflib
import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.member import MemberStream
from stockpot.stages.ingest.source import DOWNLOADS, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KNOWN", "Published", "counts", "describe"]


@dataclass(frozen=True)
class Published:
    """What OGB publishes about a data set: its split, its form, its counts."""

    split: str
    binary: bool
    nodes: int
    edges: int
    features: int
    classes: int
    splits: tuple[int, int, int]


KNOWN = {
    "ogbn-arxiv": Published("time", False, 169_343, 1_166_243, 128, 40, (90_941, 29_799, 48_603)),
    "ogbn-products": Published(
        "sales_ranking", False, 2_449_029, 61_859_140, 100, 47, (196_615, 39_323, 2_213_091)
    ),
    "ogbn-papers100M": Published(
        "time", True, 111_059_956, 1_615_685_872, 128, 172, (1_207_179, 125_265, 214_338)
    ),
}
_REFUSED = {"ogbn-proteins": "multi-label targets are", "ogbn-mag": "heterogeneous graphs are"}
_SPLITS = ("train", "valid", "test")


def describe(source: str, rest: str) -> Source:
    """The source of `ogb:NAME` or `ogb:NAME@ROOT`, ROOT as ogb's own `root=`: the folder that holds
    `ogbn_arxiv`.

    Raises
    ------
    BadInput
        The name is unknown or of a kind that is not available. Missing files are told as `absent`.
    """
    name, _, given = rest.partition("@")
    if name in _REFUSED:
        raise BadInput(
            f"dataset.source {source}: {_REFUSED[name]} not available in this version",
            fix=_choose(),
        )
    if name not in KNOWN:
        near = difflib.get_close_matches(name, [*KNOWN, *_REFUSED], n=1, cutoff=0.0)[0]
        raise BadInput(
            f"dataset.source {source}: unknown data set {name!r}, nearest is {near}", fix=_choose()
        )
    folder = (Path(given) if given else DOWNLOADS).absolute() / name.replace("-", "_")
    files = {file: str(folder / file) for file in _files(KNOWN[name])}
    if not (folder / "raw/node-feat.csv.gz").is_file():
        files.pop("raw/node-feat.csv.gz", None)  # a data set may come without
    missing = [file for file in files if not (folder / file).is_file()]
    absent = _absent(source, folder, missing) if missing else None
    return Source(
        source, "ogb", name, str(folder), files, absent, left_out=_left_out(folder, files)
    )


def _left_out(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Raw files and splits that are published and not used: years of papers, say."""
    found = (
        path for part in ("raw", "split") for path in (folder / part).rglob("*") if path.is_file()
    )
    names = (path.relative_to(folder).as_posix() for path in found)
    return tuple(sorted(name for name in names if name not in files))


def _choose() -> str:
    return f"set dataset.source to one of {', '.join(f'ogb:{name}' for name in KNOWN)}"


def _files(known: Published) -> list[str]:
    raw = ["data.npz", "node-label.npz"]
    if not known.binary:
        raw = [
            f"{part}.csv.gz"
            for part in ("edge", "node-feat", "node-label", "num-edge-list", "num-node-list")
        ]
    return [
        *(f"raw/{file}" for file in raw),
        *(f"split/{known.split}/{part}.csv.gz" for part in _SPLITS),
    ]


def _absent(source: str, folder: Path, missing: list[str]) -> BadInput:
    text = f"dataset.source {source}: missing in {folder}: {', '.join(missing)}"
    return BadInput(text, fix="stockpot fetch RECIPE")


def counts(source: Source) -> Mapping[str, Any] | None:
    """Published counts; where the files are there, the counts these state, which win."""
    try:
        return _counts(source)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zlib.error, zipfile.BadZipFile):
        return None  # reading it says what is wrong


def _counts(source: Source) -> Mapping[str, Any]:
    known = KNOWN[source.name]
    nodes, edges, columns = known.nodes, known.edges, known.features
    if source.absent is None:
        nodes, edges, columns = _stated(source, known)
    splits = dict(zip(_SPLITS, known.splits, strict=True))
    if nodes != known.nodes:
        splits = {
            part: _lines(source.files[f"split/{known.split}/{part}.csv.gz"]) for part in _SPLITS
        }
    return {
        "num_nodes": nodes,
        "num_edges_stored": edges,
        "num_classes": known.classes,
        "labelled": sum(splits.values()),
        "splits": splits,
        "published_splits": 1,
        "weighted": False,
        "features": "dense" if columns else "none",
        "num_features": columns,
        "x_nnz": nodes * columns,
        "binary": False,
    }


def _stated(source: Source, known: Published) -> tuple[int, int, int]:
    """Nodes, edges and feature columns as the files' own counts and headers state them."""
    if known.binary:
        with zipfile.ZipFile(source.files["raw/data.npz"]) as archive:
            streams = {
                name: MemberStream(
                    lambda name=name: archive.open(f"{name}.npy"),  # type: ignore[misc]
                    archive.getinfo(f"{name}.npy").file_size,
                )
                for name in ("num_nodes_list", "edge_index", "node_feat")
                if f"{name}.npy" in archive.namelist()
            }
            nodes = int(streams["num_nodes_list"].read(0, 1)[0])
            columns = streams["node_feat"].shape[1] if "node_feat" in streams else 0
            return nodes, streams["edge_index"].shape[1], columns
    nodes, edges = (
        int(_first_line(source.files[f"raw/num-{what}-list.csv.gz"])) for what in ("node", "edge")
    )
    features = source.files.get("raw/node-feat.csv.gz")
    return nodes, edges, 0 if features is None else len(_first_line(features).split(","))


def _first_line(path: str) -> str:
    with gzip.open(path, "rt") as file:
        return file.readline()


def _lines(path: str) -> int:
    with gzip.open(path, "rb") as file:
        return sum(1 for line in file if line.strip())
