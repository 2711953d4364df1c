"""Members of an npz file by name; whatever is wrong with the file or a member is one line that
names both.
"""

from __future__ import annotations

import shlex
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.fields import Fields, take
from stockpot.stages.ingest.member import MemberStream, checked_header, read_array, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["UNREADABLE", "Members", "check_archive", "open_npz"]

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
"""What zipfile, zlib and numpy raise of a file that is not sound; RuntimeError of one that is
encrypted."""

_FIX = "write it again with numpy.savez"
_SINGLE = "numpy.savez(path, edge_index=..., x=..., y=...); data/README.md lists the names"
_NPY = b"\x93NUMPY"
_MOST_DEFLATED = 1040
"""A byte of deflate gives at most 1,032."""


class Members:
    """Arrays of an npz file, read when asked for.

    Attributes
    ----------
    fields : what the names of the members stand for; `bad` and the readers take names of the npz
        format.
    """

    fields = Fields({})

    def __init__(self, path: Path, archive: zipfile.ZipFile | None) -> None:
        self.path = path
        if archive is not None:
            self._archive = archive
            check_archive(archive, path)
            self.fields = take(
                self.all_names(),
                self.bad,
                self._is_text,
                f"zip -d {shlex.quote(path.name)} {{name}}.npy",
            )

    def __contains__(self, name: str) -> bool:
        return name in self.fields.given or name in self.fields.splits.values()

    def all_names(self) -> list[str]:
        """Names of all members, sorted."""
        return sorted(entry.filename.removesuffix(".npy") for entry in self._archive.infolist())

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read the member.

        Raises
        ------
        BadInput
            It is missing, pickled or damaged.
        """
        with self.reading(name):
            entry = self._entry(name)
            with self._archive.open(entry) as file:
                return read_array(file, entry.file_size)

    def stream(self, name: str) -> MemberStream:
        """Open the member to be read in pieces, each of them under `reading(name)`; its own handle
        on the file.

        Raises
        ------
        BadInput
            It is missing, pickled or damaged.
        """
        with self.reading(name):
            entry = self._entry(name)
            return MemberStream(lambda: self._archive.open(entry), entry.file_size)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        return self._archive.getinfo(f"{self.fields.given.get(name, name)}.npy")

    def _is_text(self, name: str) -> bool:
        with self._archive.open(f"{name}.npy") as file:
            return read_header(file)[2].kind in "US"

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn what goes wrong while member `name` is read into a `BadInput` that names it."""
        if name not in self:
            raise self.bad(
                name, f"expected this member, found {', '.join(self.all_names()) or 'none at all'}"
            )
        try:
            yield
        except BadInput:
            raise
        except UNREADABLE as error:
            raise self.bad(name, damage(error), fix=mend(error)) from error

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        """Error about member `name`; without a mend of its own, to correct it in the file."""
        name = self.fields.given.get(name, name)
        return BadInput(
            f"{self.path}: {name}: {text}",
            fix=fix or f"correct {name} in {self.path.name} and run the same command again",
        )


def damage(error: Exception) -> str:
    """What is said of an array that cannot be read."""
    if "allow_pickle" in str(error):
        return "expected plain numbers, found pickled objects"
    return f"expected a readable array, found a damaged one ({error})"


def mend(error: Exception) -> str:
    """The mend of an array that cannot be read; objects would be pickled again."""
    if "allow_pickle" in str(error):
        return (
            "store rows of equal length and one type: numpy.array(values, dtype=float) says "
            "what does not fit"
        )
    return _FIX


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an npz file with a member that is no array of the size that it declares, before any is
    read.

    Raises
    ------
    BadInput
        Naming the member.
    """
    entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
    stored, size = sum(entry.compress_size for entry in entries), path.stat().st_size
    if stored > size:
        text = f"expected members beside each other, found {stored:,} bytes of them in {size:,}"
        raise BadInput(f"{path}: {text}", fix=_FIX)
    for at, entry in enumerate(entries):
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename:
            drop = f"zip -d {shlex.quote(path.name)} {shlex.quote(name)}"
            raise BadInput(f"{path}: {name}: expected arrays alone, found another file", fix=drop)
        if at and entries[at - 1].filename == entry.filename:
            raise BadInput(f"{path}: {name}: expected this member once, found it twice", fix=_FIX)
        try:
            _check_entry(archive, entry)
        except UNREADABLE as error:
            unneeded = (
                f"where it is not needed, zip -d {shlex.quote(path.name)} "
                f"{shlex.quote(entry.filename)}; else "
            )
            raise BadInput(
                f"{path}: {name}: {damage(error)}", fix=unneeded + mend(error)
            ) from error


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    deflated = entry.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("compressed otherwise than numpy does")
    if entry.file_size > (
        _MOST_DEFLATED * (entry.compress_size + 1) if deflated else entry.compress_size
    ):
        raise ValueError(f"{entry.compress_size:,} bytes that declare to hold {entry.file_size:,}")
    with archive.open(entry) as file:
        checked_header(file, entry.file_size)


@contextmanager
def open_npz(path: Path) -> Iterator[Members]:
    """Open an npz file; pickled objects are never loaded, declared sizes never believed.

    Raises
    ------
    BadInput
        The file is missing, truncated, or no npz, or a member has a name that is not understood.
    """
    with ExitStack() as stack:
        # Only opening is guarded: an error of the caller's own disk must not be blamed on this
        # file.
        try:
            file = stack.enter_context(path.open("rb"))
            if file.read(len(_NPY)) == _NPY:
                raise BadInput(f"{path}: expected an npz file, found a single array", fix=_SINGLE)
            archive = stack.enter_context(zipfile.ZipFile(file))
        except BadInput:
            raise
        except UNREADABLE as error:
            raise BadInput(
                f"{path}: expected a readable npz file, found {error}", fix=_FIX
            ) from error
        yield Members(path, archive)
