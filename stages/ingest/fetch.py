"""Raw files of a published data set arrive whole or not at all, and nothing is asked.

They are brought into a folder beside their place and renamed into it once all of them are there.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import urllib.request
import uuid
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput, StockpotError
from stockpot.stages.ingest.sources.ogb_package import downloader, published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stockpot.stages.ingest.source import Source

__all__ = ["fetch"]

_PATIENCE_S = 60.0
_PARTIAL = ".stockpot-fetch-"


def fetch(source: Source, say: Callable[[str], None]) -> None:
    """Bring the raw files of an `ogb:` or `pyg:` source that is absent.

    Parameters
    ----------
    say : told what is brought, from where, of what size, before it is.

    Raises
    ------
    BadInput
        There is nothing to fetch for its kind, no way to the network, no room, or what came is not
        what was expected.
    """
    fetchers = {"ogb": _fetch_ogb, "pyg": _fetch_pyg}
    if source.kind not in fetchers:
        raise BadInput(
            f"dataset.source {source.text}: expected ogb: or pyg:, found nothing that could be "
            f"fetched",
            fix="set dataset.source to a published data set; data/README.md lists them",
        )
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_S)
    try:
        fetchers[source.kind](source, say)
    finally:
        socket.setdefaulttimeout(before)


# --- ogb


def _fetch_ogb(source: Source, say: Callable[[str], None]) -> None:
    """Download and unpack the archive of ogb's own table with ogb's own functions, but for its
    questions.
    """
    about, folder = published(source.name), Path(source.root)
    url, archive = about["url"], about["download_name"]
    size = _size(source, url)
    say(f"fetching {url}, {size / 1e6:,.1f} MB, into {folder}")
    module = downloader()
    with _beside(folder) as room:
        _check_room(source, room, size)
        path = _downloaded(source, module, url, room)
        if path.stat().st_size != size:
            raise _failed(source, url, f"expected {size:,} bytes, found {path.stat().st_size:,}")
        try:
            with zipfile.ZipFile(path) as content:
                _check_room(source, room, sum(entry.file_size for entry in content.infolist()))
            module.extract_zip(str(path), str(room), log=False)
        except zipfile.BadZipFile as error:
            raise _failed(source, url, f"expected a zip archive, found {error}") from error
        missing = [name for name in source.files if not (room / archive / name).is_file()]
        if missing:
            raise _failed(source, url, f"expected {', '.join(missing)} in {archive}/, found none")
        _put(room / archive, folder, say)


def _size(source: Source, url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - from ogb's own table
            stated = answer.headers.get("Content-Length")
    except (OSError, ValueError) as error:
        raise _failed(source, url, f"cannot reach it: {getattr(error, 'reason', error)}") from error
    if stated is None:
        raise _failed(
            source, url, "expected an answer that states its size, found one that does not"
        )
    return int(stated)


def _downloaded(source: Source, module: Any, url: str, room: Path) -> Path:
    try:
        return Path(module.download_url(url, str(room), log=False))
    except (OSError, RuntimeError) as error:
        # ogb makes one RuntimeError of whatever stops it, Ctrl-C included.
        cause = error.__context__
        if isinstance(cause, (KeyboardInterrupt, StockpotError)):
            raise cause from None
        raise _failed(source, url, f"it broke off: {cause or error}") from error


def _failed(source: Source, url: str, text: str) -> BadInput:
    folder = Path(source.root)
    return BadInput(
        f"dataset.source {source.text}: {url}: {text}",
        fix=f"stockpot fetch RECIPE once the network is there; or unzip the archive so that "
        f"{folder}/raw is there",
    )


def _check_room(source: Source, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise BadInput(
            f"dataset.source {source.text}: {folder.parent}: expected {size:,} bytes free, found "
            f"{free:,}",
            fix=f"free some, or name another folder: "
            f"dataset.source={source.text.partition('@')[0]}@FOLDER",
        )


# --- torch_geometric


class _FetchedError(Exception):
    """Ends the construction of a data set once its raw files are there."""


def _fetch_pyg(source: Source, say: Callable[[str], None]) -> None:
    """Let the class download its raw files; processing them is left to ingest."""
    from stockpot.stages.ingest.sources.pyg_source import parse

    named, root = parse(source.text), Path(source.root)
    with warnings.catch_warnings(action="ignore"):  # torch's, about what torch_geometric uses
        from torch_geometric import datasets

    cls = getattr(datasets, named.cls)

    def stop(_: Any) -> None:
        raise _FetchedError

    raw = type(cls.__name__, (cls,), {"process": stop, "__module__": cls.__module__})
    say(
        f"fetching the raw files of {named.cls}, of a size that torch_geometric does not state, "
        f"into {root}"
    )
    with _beside(root) as room:
        try:
            with (
                contextlib.redirect_stderr(io.StringIO()),
                warnings.catch_warnings(action="ignore"),
            ):
                raw(str(room / "root"), **named.arguments)
        except _FetchedError:
            pass
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise BadInput(
                f"dataset.source {source.text}: torch_geometric cannot fetch it: {said}",
                fix=f"stockpot fetch RECIPE once the network is there; or put the raw files below "
                f"{root}",
            ) from error
        found = sorted(
            path for path in (room / "root").rglob("raw") if path.is_dir() and any(path.iterdir())
        )
        if not found:
            raise BadInput(
                f"dataset.source {source.text}: expected raw files from {named.cls}, found none",
                fix=f"put them below {root}",
            )
        for path in found:
            _put(path, root / path.relative_to(room / "root"), say)


# --- folders


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder on the same disk; those of killed fetches go with it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.glob(f"{_PARTIAL}*"):
            if not _alive(old.name.removeprefix(_PARTIAL).partition("-")[0]):
                shutil.rmtree(old, ignore_errors=True)
        room = folder.parent / f"{_PARTIAL}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        room.mkdir()
    except OSError as error:
        raise BadInput(
            f"{folder.parent}: cannot write to it: {error.strerror}", fix="let the user write there"
        ) from error
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _alive(pid: str) -> bool:
    return pid.isdigit() and Path("/proc", pid).exists()


def _put(made: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Rename a complete folder into its place; an incomplete one that stands there is moved
    aside.
    """
    if folder.exists():
        aside = folder.with_name(f"{folder.name}.incomplete-{uuid.uuid4().hex[:8]}")
        folder.rename(aside)
        say(f"{folder} was incomplete: moved to {aside}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(folder)
