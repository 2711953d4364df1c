"""A worker takes part only after it has shown that it sees the same store and sources and runs the
same software.

The driver leaves a token in the store. A worker reads it and leaves a reply beside it, which the
driver reads: a folder of the same name on another disk passes neither way.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.errors import BadInput
from stockpot.planning.budget import machine_bytes
from stockpot.store import fs
from stockpot.store.manifest import host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Answer", "Probe", "answer", "software"]

DECIDING = (
    "numpy",
    "scipy",
    "numba",
    "pyarrow",
    "zarr",
    "google-crc32c",
    "blake3",
    "dask",
    "distributed",
)
"""Libraries that decide the bytes of exact stages, or whether driver and worker understand each
other."""

RECORDED = ("torch", "torch_geometric", "pymetis", "safetensors")
"""Libraries of stages whose bytes are recorded: another version is used, and said."""

SEEN_WITHIN_S = 15.0
"""A network file system may show a new name late."""


@dataclass(frozen=True)
class Answer:
    """What a worker found.

    Attributes
    ----------
    problem, fix : why it cannot take part, and the mend; "" where it can.
    memory_bytes : of its machine or container.
    """

    host: str
    pid: int
    software: Mapping[str, str]
    memory_bytes: int
    problem: str = ""
    fix: str = ""


@dataclass
class Probe:
    """The driver's side: a token in the store for as long as the run lasts.

    Parameters
    ----------
    store : its folder.
    sources : files outside the store that tasks will read.
    """

    store: Path
    sources: Sequence[Path] = ()
    folder: Path = field(init=False)
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.store = self.store.absolute()
        self.folder = self.store / "work" / f".probe-{fs.unique()}"
        self.token = secrets.token_hex(16)
        with fs.disk_errors(self.store):
            fs.make_folders(self.folder)
            fs.write_new(self.folder / "token", self.token.encode())

    def question(self) -> tuple[str, str, str, list[tuple[str, int]]]:
        """Arguments of `answer`, all plain data; the third names the reply file."""
        sources = [(str(path.absolute()), path.stat().st_size) for path in self.sources]
        return str(self.folder), self.token, f"reply-{fs.unique()}", sources

    def judge(self, who: str, reply: str, found: Answer) -> str:
        """Warning about a worker that can take part, or "".

        Raises
        ------
        BadInput
            It cannot; names the worker, what is wrong and the mend.
        """
        who = f"worker {who} on {found.host}"
        own = software()
        differ = {name: (own[name], found.software.get(name, "none")) for name in own}
        differ = {name: pair for name, pair in differ.items() if pair[0] != pair[1]}
        if bad := [name for name in differ if name not in RECORDED]:
            raise BadInput(
                f"{who}: {_versions(differ, bad)}", fix=f"{SAME}, restart the worker and run again"
            )
        if found.problem:
            raise BadInput(f"{who}: {found.problem}", fix=found.fix)
        if _read(self.folder / reply) != self.token:
            raise BadInput(
                f"{who}: what it wrote into the store {self.store} does not arrive here: its "
                f"folder is another one",
                fix=SHARED,
            )
        return (
            f"{who}: {_versions(differ, list(differ))}: recorded stages may differ by worker"
            if differ
            else ""
        )

    def close(self) -> None:
        """Remove the token."""
        fs.remove_tree(self.folder)


SAME = "install the same stockpot with the same constraints.txt everywhere"
SHARED = (
    "put the store on storage that every worker mounts under the same path and name it with --store"
)


def _versions(differ: Mapping[str, tuple[str, str]], names: Sequence[str]) -> str:
    return ", ".join(
        f"{name}: expected {differ[name][0]}, found {differ[name][1]}" for name in names
    )


def answer(folder: str, token: str, reply: str, sources: Sequence[tuple[str, int]]) -> Answer:
    """Look, from a worker, for the token and the sources, and leave the reply."""
    problem, fix = _look(Path(folder), token, reply, sources)
    return Answer(host(), os.getpid(), software(), machine_bytes(), problem, fix)


def _look(
    folder: Path, token: str, reply: str, sources: Sequence[tuple[str, int]]
) -> tuple[str, str]:
    store = folder.parents[1]
    try:
        found = _read(folder / "token", 0.0 if not store.is_dir() else SEEN_WITHIN_S)
    except OSError as error:
        return (
            f"cannot read the store {store}: {error.strerror}",
            "let the worker's user read and write the store",
        )
    if found is None:
        what = (
            "it is another folder than the driver's" if store.is_dir() else "no such folder there"
        )
        return f"cannot see the store {store}: {what}", SHARED
    if found != token:
        return f"the store {store} is another folder than the driver's", SHARED
    try:
        fs.write_new(folder / reply, token.encode())
    except OSError as error:
        return (
            f"cannot write to the store {store}: {error.strerror}",
            "let the worker's user write there",
        )
    for name, size in sources:
        try:
            here = Path(name).stat().st_size
        except OSError as error:
            return f"cannot see the source {name}: {error.strerror}", _SOURCE
        if here != size:
            return f"source {name}: expected {size} bytes as on the driver, found {here}", _SOURCE
    return "", ""


_SOURCE = (
    "put it on storage that every worker mounts under the same path and name it in "
    "dataset.source or infer.split"
)


def _read(path: Path, within_s: float = SEEN_WITHIN_S) -> str | None:
    """Text of a small file that should be there, waited for; None where it does not come."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return path.read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            if time.monotonic() >= deadline:
                return None
        time.sleep(0.2)


@cache
def software() -> dict[str, str]:
    """Versions that must agree, stockpot's with a digest of its code, and of the libraries behind
    recorded stages.
    """
    found = {"stockpot": f"{_version('stockpot')} (code {_code()})"}
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    return found | {name: _version(name) for name in (*DECIDING, *RECORDED)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _code() -> str:
    from stockpot.stages.package import source_files
    from stockpot.store.digests import bytes_digest

    return bytes_digest(
        b"".join(bytes_digest(path.read_bytes()).encode() for path in source_files().values())
    )[:8]
