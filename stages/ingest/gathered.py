"""Arrays that stand in several files, or in memory, read under the names of one npz data set;
errors name the file.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.fields import PARTS, Fields
from stockpot.stages.ingest.member import MemberStream, read_array
from stockpot.stages.ingest.members import UNREADABLE, Members, check_archive

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Gathered", "Part"]


@dataclass(frozen=True)
class Part:
    """Where an array stands: a .npy file, a `member` of an npz file, or `values` read from `path`
    before.
    """

    path: Path
    member: str = ""
    values: NDArray[Any] | None = None


class Gathered(Members):
    """`Members` of several files.

    Parameters
    ----------
    where : what errors about no file name.
    parts : name as in `npz:` -> where it stands.
    stack : closes the files.
    kinds : "train", "valid", "test" -> "idx" or "mask" where the names of their files say so.
    """

    def __init__(
        self,
        where: Path,
        parts: Mapping[str, Part],
        stack: ExitStack,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(where, None)
        self._parts, self._stack = dict(parts), stack
        self.fields = Fields(
            {name: name for name in self._parts},
            {
                part: name
                for part in PARTS
                for name in (f"{part}_idx", f"{part}_masks")
                if name in self._parts
            },
            kinds or {part: "mask" if f"{part}_masks" in self._parts else "" for part in PARTS},
        )
        self._zips: dict[Path, zipfile.ZipFile] = {}
        for name, part in self._parts.items():
            if part.member and part.path not in self._zips:
                try:
                    self._zips[part.path] = stack.enter_context(zipfile.ZipFile(part.path))
                except UNREADABLE as error:
                    raise self.bad(name, f"expected a readable npz file, found {error}") from error
                check_archive(self._zips[part.path], part.path)
        for name, part in self._parts.items():
            if part.member and f"{part.member}.npy" not in self._zips[part.path].namelist():
                found = ", ".join(sorted(self._zips[part.path].namelist())) or "none at all"
                raise self.bad(name, f"expected this member, found {found}")

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def all_names(self) -> list[str]:
        return sorted(self._parts)

    def others(self, path: Path) -> list[str]:
        """Names of all members of one of the npz files, sorted."""
        return sorted(name.removesuffix(".npy") for name in self._zips[path].namelist())

    def __getitem__(self, name: str) -> NDArray[Any]:
        with self.reading(name):
            values = self._parts[name].values
            if values is not None:
                return values
            with self._open(name) as file:
                return read_array(file, self._size(name))

    def stream(self, name: str) -> MemberStream:
        with self.reading(name):
            return MemberStream(lambda: self._open(name), self._size(name))

    def _open(self, name: str) -> IO[bytes]:
        part = self._parts[name]
        if part.values is not None:
            content = io.BytesIO()
            np.lib.format.write_array(content, part.values, allow_pickle=False)
            content.seek(0)
            return content
        if part.member:
            return self._zips[part.path].open(f"{part.member}.npy")
        return self._stack.enter_context(part.path.open("rb"))

    def _size(self, name: str) -> int:
        """Bytes of the array with its header, as the file system or the zip states it."""
        part = self._parts[name]
        if part.values is not None:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, np.lib.format.header_data_from_array_1_0(part.values)
            )
            return header.tell() + part.values.nbytes
        if part.member:
            return self._zips[part.path].getinfo(f"{part.member}.npy").file_size
        return part.path.stat().st_size

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        """Error about `name`, under its file and its name there."""
        part = self._parts.get(name)
        where = (
            f"{self.path}: {name}"
            if part is None
            else f"{part.path}: {part.member}"
            if part.member
            else part.path
        )
        file = (self.path if part is None else part.path).name
        return BadInput(
            f"{where}: {text}", fix=fix or f"correct {file} and run the same command again"
        )
