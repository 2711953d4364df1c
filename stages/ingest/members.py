"""Members of an npz file by name; whatever is wrong with the file or a member is one line that names both."""

from __future__ import annotations

import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.ingest.member import MemberStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["UNREADABLE", "Members", "open_npz"]

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)
_FIX = "write it again with numpy.savez"


class Members:
    """Arrays of an npz file, read when asked for."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file

    def __contains__(self, name: str) -> bool:
        return name in self._file.files

    def names(self) -> list[str]:
        """Names of all members, sorted."""
        return sorted(self._file.files)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read the member.

        Raises
        ------
        BadInput
            It is missing, pickled or damaged.
        """
        with self.reading(name):
            return np.asarray(self._file[name])

    def stream(self, name: str) -> MemberStream:
        """Open the member to be read in pieces, each of them under `reading(name)`; its own handle on the file.

        Raises
        ------
        BadInput
            It is missing, pickled or damaged.
        """
        with self.reading(name):
            return MemberStream(lambda: self._file.zip.open(f"{name}.npy"))

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn what goes wrong while member `name` is read into a `BadInput` that names it."""
        if name not in self:
            raise self.bad(name, f"expected this member, found {', '.join(self.names()) or 'none at all'}")
        try:
            yield
        except BadInput:
            raise
        except UNREADABLE as error:
            if "allow_pickle" in str(error):
                raise self.bad(name, "expected plain numbers, found pickled objects", fix=_FIX) from error
            raise self.bad(name, f"expected a readable array, found a damaged one ({error})", fix=_FIX) from error

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        """Error about member `name`; without a mend of its own, to correct it in the file."""
        return BadInput(
            f"{self.path}: {name}: {text}",
            fix=fix or f"correct {name} in {self.path.name} and run the same command again",
        )


@contextmanager
def open_npz(path: Path) -> Iterator[Members]:
    """Open an npz file; pickled objects are never loaded.

    Raises
    ------
    BadInput
        The file is missing, truncated, or no npz.
    """
    with ExitStack() as stack:
        # Only opening is guarded: an error of the caller's own disk must not be blamed on this file.
        try:
            # numpy leaves a file it opened itself open when that turns out to be no zip.
            file: Any = np.load(stack.enter_context(path.open("rb")), allow_pickle=False)
        except UNREADABLE as error:
            what = "pickled objects or another format" if "allow_pickle" in str(error) else str(error) or "no content"
            raise BadInput(f"{path}: expected a readable npz file, found {what}", fix=_FIX) from error
        if not hasattr(file, "files"):
            raise BadInput(f"{path}: expected an npz file, found a single array", fix=_FIX)
        stack.enter_context(file)
        yield Members(path, file)
