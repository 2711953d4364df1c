"""Every file of a folder is part of the data set, left alone and said, or refused with the nearest
name.
"""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.fields import PARTS, nearest_name, split_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["FORMS", "SPLIT_FORMS", "form", "kinds", "roles", "scan"]

FORMS = {
    "edges": (".parquet", ".csv", ".csv.gz", ".arrow", ".npy"),
    "labels": (".npy", ".parquet", ".csv", ".csv.gz"),
    "features": (".npy", ".npz", ".parquet"),
}
SPLIT_FORMS = (".npy", ".csv", ".csv.gz", ".txt", ".parquet")
_TEXTS = {".md", ".rst", ".txt", ".html", ".pdf", ".log", ".bib"}
_SETTINGS = {".json", ".yaml", ".yml", ".toml", ".xml", ".py", ".ipynb", ".sh"}
_PICTURES = {".png", ".svg", ".jpg"}
_DOCUMENTS = _TEXTS | _SETTINGS | _PICTURES
_MAYBE_DATA = {".txt", ".json"}
_NAMES = (
    "README",
    "LICENSE",
    "LICENCE",
    "COPYING",
    "CITATION",
    "CHANGELOG",
    "NOTICE",
    "AUTHORS",
    "Makefile",
    "RELEASE",
)
_TORCH = (".pt", ".pth")
_PACKED = (".gz", ".bz2", ".xz", ".zst")


def form(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name, that of a packed file in full: ("train", ".csv.gz")."""
    dot, last = name.rpartition(".")[1:]
    packed = f"{dot}{last}" if f".{last}" in _PACKED and dot else ""
    stem, dot, suffix = (name.removesuffix(packed)).rpartition(".")
    return (stem, f"{dot}{suffix}{packed}") if dot else (suffix, packed)


def roles(names: Iterable[str]) -> dict[str, str]:
    """Relative name of the file that is edges, labels, features, train, valid or test, by that."""
    found = {}
    for name in names:
        stem = form(name.rpartition("/")[2])[0]
        part = split_name(stem)
        found[stem if part is None else part[0]] = name
    return found


def kinds(files: Mapping[str, str]) -> dict[str, str]:
    """Whether the name of a file of `roles` says "idx", "mask" or neither (""), by part of the
    split.
    """
    parts = {
        part: split_name(form(files[part].rpartition("/")[2])[0]) for part in PARTS if part in files
    }
    return {part: said[1] for part, said in parts.items() if said is not None}


def scan(source: str, root: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Relative name -> path of the files that are used, and the names that are left alone.

    Raises
    ------
    BadInput
        A file looks like data and is none of the known, one stands there twice, or part of a split
        is missing.
    """
    found: dict[str, list[str]] = {}
    left: list[str] = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and entry.name == "split":
            for inner in sorted(entry.iterdir()):
                _sort(source, f"split/{inner.name}", inner, found, left)
        else:
            _sort(source, entry.name, entry, found, left)
    for role, names in found.items():
        if len(names) > 1:
            raise _bad(
                source,
                f"{root}: expected {role} once, found {' and '.join(names)}",
                "move out all but one",
            )
    there = [part for part in PARTS if part in found]
    if there and len(there) < len(PARTS):
        missing = next(part for part in PARTS if part not in found)
        beside = found[there[0]][0]
        folder, _, leaf = beside.rpartition("/")
        wanted = f"{folder}/{leaf}".lstrip("/").replace(there[0], missing)
        raise _bad(
            source,
            f"{root}: expected {wanted} beside {beside}, found none",
            f"write {wanted}, or move out {beside}: dataset.split then draws a split",
        )
    return {names[0]: str(root / names[0]) for names in found.values()}, tuple(left)


def _sort(source: str, name: str, path: Path, found: dict[str, list[str]], left: list[str]) -> None:
    """Put one entry of the folder where it belongs."""
    stem, suffix = form(path.name)
    part, inside = split_name(stem), "/" in name
    if path.is_dir():
        _folder(source, name, path, left, inside=inside)
    elif _hidden(path.name):
        left.append(name)
    elif part is not None and suffix not in _DOCUMENTS - _MAYBE_DATA:
        if suffix not in SPLIT_FORMS:
            raise _unread_split(source, path, part[0], suffix)
        found.setdefault(part[0], []).append(name)
    elif not inside and suffix in FORMS.get(stem, ()):
        found.setdefault(stem, []).append(name)
    elif _document(path.name, stem, suffix):
        left.append(name)
    else:
        raise _unknown(source, path, PARTS if inside else (*FORMS, *PARTS))


def _hidden(name: str) -> bool:
    return name.startswith((".", "_")) or name.endswith("~")


def _document(name: str, stem: str, suffix: str) -> bool:
    """Whether a file is read by people: by its suffix, where its name is not nearly that of data,
    or by its name.
    """
    if name.upper().startswith(_NAMES) or not suffix:
        return name.upper().startswith(_NAMES) or not _like(stem)
    return suffix in _DOCUMENTS and not (suffix in _MAYBE_DATA and _like(stem))


def _like(stem: str) -> bool:
    return bool(
        difflib.get_close_matches(
            stem.lower(), [*FORMS, "edge_index", "y", "x", *PARTS], n=1, cutoff=0.7
        )
    )


def _folder(source: str, name: str, path: Path, left: list[str], *, inside: bool) -> None:
    if inside and any(path.iterdir()):
        mend = (
            f"mv {shlex.quote(str(path))}/* {shlex.quote(str(path.parent))} && rmdir "
            f"{shlex.quote(str(path))}"
        )
        raise _bad(source, f"{path}: expected the files of the split here, found a folder", mend)
    if not inside and _split_folder(path.name.lower()):
        into = path.parent / "split"
        text = f"{path}: expected the split in {into}, found a folder of another name"
        raise _bad(
            source,
            text,
            f"put train, valid and test into {into}, or move {path.name} out of {path.parent}",
        )
    left.append(f"{name}/")


def _split_folder(name: str) -> bool:
    near = difflib.get_close_matches(name, [*FORMS, "split"], n=1, cutoff=0.7)
    return bool(near) or split_name(name) is not None


def _unread_split(source: str, path: Path, part: str, suffix: str) -> BadInput:
    forms = ", ".join(suffix[1:] for suffix in SPLIT_FORMS)
    mend = f"write it as {part}.npy: numpy.save('{part}.npy', ids)"
    if suffix in _TORCH:
        target = path.with_suffix(".npy")
        mend = (
            f'python -c "import numpy, torch; numpy.save({str(target)!r}, '
            f"torch.load({str(path)!r}, weights_only=True)"
            f'.numpy())" && rm {shlex.quote(str(path))}'
        )
    return _bad(
        source,
        f"{path}: expected a part of the split as {forms}, found {suffix or 'no suffix'}",
        mend,
    )


def _unknown(source: str, path: Path, known: Iterable[str]) -> BadInput:
    stem = form(path.name)[0]
    near = nearest_name(
        stem, [*known, *(("edge_index", "node_feat", "x", "y") if "edges" in known else ())]
    )
    near = {"edge_index": "edges", "node_feat": "features", "x": "features", "y": "labels"}.get(
        near, near
    )
    forms = FORMS.get(near, SPLIT_FORMS)
    choices = (
        f"{near}{forms[0]}"
        if len(forms) == 1
        else f"{near}.{{{','.join(form[1:] for form in forms)}}}"
    )
    return _bad(
        source,
        f"{path}: expected a known name, found an unknown one; nearest is {choices}",
        f"write it as {choices} where it is that, else move {path.name} out of the folder",
    )


def _bad(source: str, text: str, fix: str) -> BadInput:
    return BadInput(f"dataset.source {source}: {text}", fix=fix)
