"""A `dataset.source` names a data set whose content can be digested, or the error says what it
should have named.

Describing a source reads names and headers only and imports neither torch nor torch_geometric. What
the digest covers is the content of `files` and, beside that, `kind` and `name`; never a path.
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.places import local

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["EMBEDDED", "KINDS", "Source", "describe", "single_file"]


def _embedded(root: Path) -> Path:
    """The graph that comes with stockpot: of the source tree at `root`, or where an installation
    put it.
    """
    places = [
        root / "data" / "wordnet.npz",
        root.parent / "share" / "stockpot" / "wordnet.npz",
    ]  # --target
    if not places[0].is_file():
        with suppress(metadata.PackageNotFoundError):
            places += [
                Path(str(f.locate()))
                for f in metadata.files("stockpot") or ()
                if f.name == "wordnet.npz"
            ]
    return next((place for place in places if place.is_file()), places[0])


EMBEDDED = _embedded(Path(__file__).parents[2])

DOWNLOADS = Path("data/downloads")
"""Where what a user fetched is looked for, relative to the working directory; ignored by git."""

KINDS = {
    "wordnet": "wordnet",
    "npz": "npz:PATH",
    "files": "files:DIR",
    "ogb": "ogb:ogbn-arxiv",
    "pyg": "pyg:Planetoid/Cora",
    "synthetic": "synthetic:communities",
}
"""Kind -> how a source of it is written."""

_FIX = "set dataset.source to one of " + ", ".join(KINDS.values())


@dataclass(frozen=True)
class Source:
    """A data set outside the store, as the recipe names it.

    Attributes
    ----------
    text : `dataset.source` as written, for messages.
    kind : "npz" (also of `wordnet`), "files", "ogb", "pyg", "synthetic"; "nodes" is a file of node
        ids.
    name : what the digest covers beside the files: the canonical name with its parameters; "" where
        files say it all.
    root : folder of the files, "" where there are none.
    files : relative name -> absolute path of every file that is used, in the order of names.
    absent : the error to raise where the data is needed, None where it is there. Counts may be
        known without it.
    reading : what is read of it now and was passed over by earlier versions, which keys must tell;
        "" for nothing.
    left_out : names in it that are left out on purpose, to be said.
    """

    text: str
    kind: str
    name: str = ""
    root: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    absent: BadInput | None = None
    reading: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether it is one file read by path, whose digest is that of its content alone."""
        return self.kind in ("npz", "nodes")

    def bytes(self) -> int:
        """Size of all files."""
        return sum(Path(path).stat().st_size for path in self.files.values())


def single_file(text: str, path: Path, kind: str = "npz") -> Source:
    """The source that is one file."""
    return Source(
        text, kind, root=str(path.absolute().parent), files={"source": str(path.absolute())}
    )


def describe(source: str) -> Source:
    """The source a `dataset.source` names; relative paths are relative to the working directory.

    Raises
    ------
    BadInput
        Its kind is unknown (names the nearest), it is written wrongly, or its files are missing.
        Where its counts are known without the files, these are only told as `absent`.
    """
    kind, _, rest = source.partition(":")
    local(rest if kind in KINDS else source, "dataset.source")
    if source == "wordnet":
        return _npz(source, EMBEDDED)
    if kind in ("wordnet", "npz") or kind not in KINDS or not rest:
        if kind == "npz" and rest:
            return _npz(source, Path(rest))
        near = difflib.get_close_matches(kind, KINDS, n=1)
        nearest = f"; nearest is {near[0]}" if near and near[0] != source else ""
        ways = [f'"{way}"' for way in KINDS.values()]
        raise BadInput(
            f"dataset.source: expected {', '.join(ways[:-1])} or {ways[-1]}, found "
            f'"{source}"{nearest}',
            fix=_FIX,
        )
    module = import_module(f"stockpot.stages.ingest.sources.{kind}_source")
    found: Callable[[str, str], Source] = module.describe
    return found(source, rest)


def _npz(source: str, path: Path) -> Source:
    if not path.is_file():
        there = [file.name for file in path.absolute().parent.glob("*.npz")]
        near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.5)
        fix = (
            f"dataset.source=npz:{path.parent / near[0]}"
            if near
            else f"correct the path; it starts at {Path.cwd()}"
        )
        raise BadInput(
            f"dataset.source {source}: expected a file at {path.absolute()}, found none", fix=fix
        )
    from stockpot.stages.ingest.members import open_npz

    with open_npz(path) as members:
        fields = members.fields
    return replace(single_file(source, path), reading=fields.reading, left_out=fields.left_out)


def parse_options(source: str, text: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options `a=1&b=2` of a source over their defaults, each of the type of its default; "1e6" is
    a whole number.

    Raises
    ------
    BadInput
        A name is unknown (names the nearest), stands twice, or its value is of another type.
    """
    values = dict(defaults)
    given: set[str] = set()
    for part in text.split("&") if text else ():
        name, sign, value = part.partition("=")
        if name not in defaults:
            nearest = difflib.get_close_matches(name, defaults, n=1, cutoff=0.0)[0]
            raise BadInput(
                f"dataset.source {source}: unknown option {name!r}, nearest is {nearest}",
                fix=f"use {', '.join(defaults)}",
            )
        if name in given or not sign:
            what = "found it twice" if name in given else "found no value"
            raise BadInput(f"dataset.source {source}: {name}: expected {name}=VALUE once, {what}")
        given.add(name)
        values[name] = _number(source, name, value, defaults[name])
    return values


def _number(source: str, name: str, value: str, default: float) -> float:
    whole = isinstance(default, int)
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not (abs(number) < 2**63 and (number == int(number) or not whole)):  # also refuses NaN
        expected = "a whole number" if whole else "a number"
        raise BadInput(f"dataset.source {source}: {name}: expected {expected}, found {value!r}")
    try:
        return int(value) if whole else number
    except ValueError:
        return int(number)  # 1e6
