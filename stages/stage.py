"""What a stage is: a description the pipeline can plan, split into shards, run anywhere and key by content.

A stage never opens files it was not handed, never imports `pipeline` and never sees Dask. Heavy imports
(torch, numba, zarr) happen inside `run`, so that describing a stage costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["OFF", "Cost", "Derived", "Facts", "Inputs", "Reader", "Shard", "Stage", "Writer", "added"]

P = TypeVar("P")
OFF = "off"
"""Metadata of a parameter's field: the value at which it stands in no key."""


def added(off: Any) -> Any:
    """Field of a `Params` that a later version added: at `off` nothing is as if it were not there, the key included.

    Artifacts built before it was added stay what they are; the stage's version need not rise.
    """
    return field(default=off, metadata={OFF: off})


Facts = Mapping[str, Any]
"""JSON facts about one committed artifact (`facts.json` in its payload): counts, sizes, quality figures."""


class Reader(Protocol):
    """One committed artifact, or in `finish` the published outputs of the shards; read-only."""

    key: str
    digest: str

    @property
    def facts(self) -> Facts: ...

    def has(self, name: str) -> bool:
        """Whether the array or file `name` is in the payload."""
        ...

    def array(self, name: str) -> NDArray[Any]:
        """Dense array `name`: a read-only memory map; checksums verified on first use."""
        ...

    def path(self, name: str) -> Path:
        """Absolute path of payload file `name`, digest-checked on first use in the process."""
        ...

    def names(self) -> Sequence[str]:
        """Relative paths of all payload files, sorted."""
        ...


@runtime_checkable
class Derived(Protocol):
    """A reader that knows the artifacts its own was made from: a store's."""

    def parent(self, role: str) -> Reader:
        """The artifact of the same store that this one was made from as `role`."""
        ...


class Writer(Protocol):
    """Private staging area of one attempt at one shard; nothing in it is visible before it is published."""

    threads: int
    memory_bytes: int
    """What the task may take at peak, above the interpreter: from `Cost.needed` to `Cost.peak`."""

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Write a dense array (zarr v3, uncompressed, crc32c last)."""
        ...

    def create(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Make a dense array on disk: a writable memory map of zeros, to be filled in any order until `run` returns.

        For what is computed piece by piece and need not fit in memory; the bytes are those of `array`.
        """
        ...

    def path(self, name: str) -> Path:
        """Path of a payload file to be created by the caller; parent folder exists."""
        ...

    def scratch(self) -> Path:
        """Folder of this shard that survives kills and is not payload (checkpoints); removed at commit."""
        ...

    def note(self, name: str, value: Any) -> None:
        """Record a figure that may differ by run (seconds, losses over time) in the manifest; never hashed."""
        ...

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Report progress of this shard."""
        ...


Inputs = Mapping[str, Reader]


@dataclass(frozen=True)
class Shard:
    """A unit of work: one task, whole files. `start:stop` is a span in the stage's own unit."""

    name: str
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Cost:
    """Projection for one stage from counts alone. Bytes; `peak` is per task, above the interpreter.

    A stage that can do with less memory states the `least` it can be held to; its writer says what it may take.
    `mend` is the override that makes the task smaller, where the stage has one: a refusal proposes it.
    `note` is what a plan says of the choice behind the figures, where the stage made one.
    """

    read: int
    written: int
    peak: int
    least: int | None = None
    mend: str = ""
    note: str = ""

    @property
    def needed(self) -> int:
        """The least bytes a task runs in."""
        return self.peak if self.least is None else self.least


@dataclass(frozen=True)
class Stage(Generic[P]):
    """Description of a stage.

    Attributes
    ----------
    name, version : the stage's name and the version of its algorithm, both hashed into every key.
    exact : same inputs give the same bytes on any number of workers and threads.
    params : frozen dataclass of resolved parameters, hashed.
    roles : names of its input artifacts ("ingredient*" means one or more: ingredient:0, ingredient:1, ...).
    reads : dotted recipe keys it may read; `resolve` is given these and no others.
    resolve : (recipe values, facts of each input by role) -> params, with every "auto" resolved; None where there is
        nothing to build: who reads it then does without.
    shards : (params, inputs) -> the shards; at least one.
    run : compute one shard; returns its facts (JSON), handed to `finish`.
    finish : after all shards: (params, inputs, shards' readers by shard name, writer) -> facts of the artifact.
        Files the shards wrote become payload under their own names; names must differ between shards.
        Shard files whose name starts with "part-" are for `finish` only and are dropped at commit.
    cost : (params, facts of each input by role) -> projection.
    """

    name: str
    version: int
    exact: bool
    params: type[P]
    roles: tuple[str, ...]
    reads: tuple[str, ...]
    resolve: Callable[[Mapping[str, Any], Mapping[str, Facts]], P | None]
    shards: Callable[[P, Inputs], Sequence[Shard]]
    run: Callable[[P, Inputs, Shard, Writer], dict[str, Any]]
    finish: Callable[[P, Inputs, Mapping[str, Reader], Writer], dict[str, Any]]
    cost: Callable[[P, Mapping[str, Facts]], Cost]
