"""A `pyg:` source is the raw files of one data set of torch_geometric; describing it imports
neither that nor torch.

Class names, constructors and published counts are read from torch_geometric's source text.
"""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.source import DOWNLOADS, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Named", "counts", "describe", "parse"]

_EMBEDDED = ("KarateClub",)
"""Classes that hold their graph themselves; others without a root draw one at random."""
_OWN = "splits"  # an option of ours, not of the constructor


@dataclass(frozen=True)
class Named:
    """A data set of torch_geometric.

    Attributes
    ----------
    cls, name : class in `torch_geometric.datasets` and its `name`, "" where it has none.
    options : further arguments of its constructor.
    splits : whether its published splits are used.
    root : its `root=`, None for the default.
    """

    cls: str
    name: str
    options: Mapping[str, Any]
    splits: bool
    root: str | None

    @property
    def canonical(self) -> str:
        """Everything but the root, in one spelling."""
        options = "".join(f"&{name}={value!r}" for name, value in sorted(self.options.items()))
        version = (
            f"&torch_geometric={importlib.metadata.version('torch_geometric')}"
            if self.cls in _EMBEDDED
            else ""
        )
        return f"{self.cls}/{self.name}?splits={self.splits}{options}{version}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor beside its root."""
        return {**({"name": self.name} if self.name else {}), **self.options}


def parse(source: str) -> Named:
    """The data set of `pyg:CLASS[/NAME][?option=value&...][@ROOT]`."""
    rest = source.partition(":")[2]
    text, _, root = rest.partition("@")
    text, _, options = text.partition("?")
    cls, _, name = text.partition("/")
    given = dict(part.partition("=")[::2] for part in options.split("&") if part)
    splits = given.pop(_OWN, "published")
    if splits not in ("published", "none"):
        raise BadInput(
            f'dataset.source {source}: splits: expected "published" or "none", found "{splits}"',
            fix="splits=none leaves the published splits out; dataset.split then draws one",
        )
    return Named(
        cls,
        name,
        {key: _value(value) for key, value in given.items()},
        splits == "published",
        root or None,
    )


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


def describe(source: str, rest: str) -> Source:
    """The source of a `pyg:` text; its files are all in the `raw` folders of this data set.

    Raises
    ------
    BadInput
        The class is unknown (names the nearest), draws its graph at random, or needs a name.
        Missing files are told as `absent`.
    """
    del rest
    named = parse(source)
    found = _class(source, named.cls)
    parameters = _parameters(found)
    if named.cls in _EMBEDDED:
        return Source(source, "pyg", named.canonical)
    if "root" not in parameters:
        raise BadInput(
            f"dataset.source {source}: {named.cls} draws its graph at random: the same key would "
            f"name other graphs",
            fix="set dataset.source to synthetic:communities",
        )
    if ("name" in parameters) != bool(named.name):
        way = f"pyg:{named.cls}/NAME" if "name" in parameters else f"pyg:{named.cls}"
        raise BadInput(
            f'dataset.source {source}: expected "{way}"', fix=f"set dataset.source to {way}"
        )
    unknown = [name for name in named.options if name not in parameters]
    if unknown:
        known = [
            name for name in parameters if name not in ("root", "name") and "transform" not in name
        ]
        raise BadInput(
            f"dataset.source {source}: unknown option {unknown[0]!r} of {named.cls}",
            fix=f"use {', '.join([_OWN, *known])}",
        )
    root = (Path(named.root) if named.root else DOWNLOADS / "pyg" / named.cls).absolute()
    files = {str(path.relative_to(root)): str(path) for path in _raw_files(root, named.name)}
    absent = None
    if not files:
        absent = BadInput(
            f"dataset.source {source}: expected the raw files of {named.cls} in {root}, found none",
            fix="stockpot fetch RECIPE",
        )
    return Source(source, "pyg", named.canonical, str(root), files, absent)


def _raw_files(root: Path, name: str) -> list[Path]:
    """Files in `raw` folders: of the root itself, or where a class has several data sets of the
    folder of this one.
    """
    bases = [root]
    if name:
        bases = (
            [base for base in root.iterdir() if _plain(base.name) == _plain(name)]
            if root.is_dir()
            else []
        )
    folders = [
        folder
        for base in bases
        for folder in [base / "raw", *sorted(base.glob("*/raw"))]
        if folder.is_dir()
    ]
    if not name:
        folders = [folder for folder in folders if folder == root / "raw"]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _class(source: str, cls: str) -> ast.ClassDef:
    spec = importlib.util.find_spec("torch_geometric")  # finds a package without importing it
    if spec is None or spec.origin is None:
        raise BadInput(
            f"dataset.source {source}: torch_geometric is not installed",
            fix="pip install torch_geometric",
        )
    folder = Path(spec.origin).parent / "datasets"
    modules = {
        item.asname or item.name: statement.module
        for statement in ast.walk(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        if isinstance(statement, ast.ImportFrom) and statement.level == 1 and statement.module
        for item in statement.names
    }
    if cls not in modules:
        nearest = difflib.get_close_matches(cls, modules, n=1, cutoff=0.0)[0]
        raise BadInput(
            f"dataset.source {source}: unknown data set {cls!r}, nearest is {nearest}",
            fix=f"set dataset.source to pyg:{nearest}, with /NAME where it has several",
        )
    path = folder / f"{modules[cls].replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)


def _parameters(cls: ast.ClassDef) -> list[str]:
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)][1:]
    return ["root"]  # the base class's own


def counts(source: Source) -> Mapping[str, Any] | None:
    """Counts of the table in the class's documentation, all estimated; None where it has none."""
    named = parse(source.text)
    rows = _table(ast.get_docstring(_class(source.text, named.cls)) or "")
    row = next(
        (row for row in rows if "Name" not in row or _plain(row["Name"]) == _plain(named.name)),
        None,
    )
    numbers = {
        key: int(text.replace(",", ""))
        for key, text in (row or {}).items()
        if re.fullmatch(r"[\d,]+", text)
    }
    if not {"#nodes", "#edges", "#features", "#classes"} <= set(numbers):
        return None
    nodes, columns = numbers["#nodes"], numbers["#features"]
    found = {
        "num_nodes": nodes,
        "num_edges_stored": numbers["#edges"],
        "num_classes": numbers["#classes"],
        "labelled": nodes,
        "splits": None,
        "published_splits": 0,
        "weighted": False,
        "features": "dense" if columns else "none",
        "num_features": columns,
        "x_nnz": nodes * columns,
        "binary": False,
    }
    return {**found, "estimated": sorted(found)}


def _table(text: str) -> list[dict[str, str]]:
    """Rows of the list-table of counts: "* - a" begins a row, "  - b" goes on."""
    rows: list[list[str]] = []
    for line in text.partition("**STATS:**")[2].splitlines():
        if found := re.match(r"\s*(\*?)\s*-\s+(.*)", line):
            if found[1]:
                rows.append([])
            if rows:
                rows[-1].append(found[2].strip())
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
