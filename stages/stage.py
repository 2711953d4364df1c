"""What a stage is: a description the pipeline can plan, split into shards, run anywhere, key by
content and report.

A stage never opens files it was not handed, never imports `pipeline` and never sees Dask. Heavy
imports (torch, numba, zarr) happen inside `run`, so that describing a stage costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.built import Block, View
    from stockpot.stages.guess import Guess, Known
    from stockpot.stages.node import Node, Nodes, Values

__all__ = [
    "OFF",
    "Cost",
    "Derived",
    "Facts",
    "Inputs",
    "Planning",
    "Reader",
    "Reporting",
    "Shard",
    "Stage",
    "Writer",
    "added",
]

P = TypeVar("P")
OFF = "off"
"""Metadata of a parameter's field: the value at which it stands in no key."""


def added(off: Any) -> Any:
    """Field of a `Params` that a later version added: at `off` nothing is as if it were not there,
    the key included.

    Artifacts built before it was added stay what they are; the stage's version need not rise.
    """
    return field(default=off, metadata={OFF: off})


Facts = Mapping[str, Any]
"""JSON facts about one committed artifact (`facts.json` in its payload): counts, sizes, quality
figures."""


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
    """Private staging area of one attempt at one shard; nothing in it is visible before it is
    published.
    """

    threads: int
    memory_bytes: int
    """What the task may take at peak, above the interpreter: from `Cost.needed` to `Cost.peak`."""

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Write a dense array (zarr v3, uncompressed, crc32c last)."""
        ...

    def create(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Make a dense array on disk: a writable memory map of zeros, to be filled in any order
        until `run` returns.

        For what is computed piece by piece and need not fit in memory; the bytes are those of
        `array`.
        """
        ...

    def path(self, name: str) -> Path:
        """Path of a payload file to be created by the caller; parent folder exists."""
        ...

    def scratch(self) -> Path:
        """Folder of this shard that survives kills and is not payload (checkpoints); removed at
        commit.
        """
        ...

    def note(self, name: str, value: Any) -> None:
        """Record a figure that may differ by run (seconds, losses over time) in the manifest; never
        hashed.
        """
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

    A stage that can do with less memory states the `least` it can be held to; its writer says what
    it may take. `mend` is the override that makes the task smaller, where the stage has one: a
    refusal proposes it. `note` is what a plan says of the choice behind the figures, where the
    stage made one.
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


def _whole(params: Any, inputs: Inputs) -> Sequence[Shard]:
    return [Shard("all")]


def _its_facts(
    params: Any, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    (only,) = outputs.values()
    return dict(only.facts)


def _no_nodes(values: Values, made: Nodes) -> Iterable[Node]:
    return ()


def _no_guess(known: Known) -> Guess | None:
    return None


def _no_figures(view: View) -> Mapping[str, Any]:
    return {}


def _no_blocks(summary: Mapping[str, Any], view: View) -> Iterable[Block]:
    return ()


def _no_remarks(view: View) -> Iterable[str]:
    return ()


def _no_tables(facts: Facts, judged: Facts) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Planning:
    """What a stage takes from a recipe.

    Attributes
    ----------
    nodes : (recipe values, nodes of the stages before it) -> its nodes, parents first.
        Raises BadInput where values of the recipe do not go together.
    sections : recipe section -> frozen dataclass whose fields are made by
        `stockpot.stages.recipe_key.key`. Other stages may read its keys too.
    guess : facts of an artifact that is not built; None where those of its inputs do not tell.
    optional : it may find that it has nothing to build, once the facts of its inputs are known.
    """

    nodes: Callable[[Values, Nodes], Iterable[Node]] = _no_nodes
    sections: Mapping[str, type] = field(default_factory=dict)
    guess: Callable[[Known], Guess | None] = _no_guess
    optional: bool = False


@dataclass(frozen=True)
class Reporting:
    """What a stage says of a run; all of it from manifests and files, so a cached run says the
    same.

    Attributes
    ----------
    summary : its part of `summary.json`: section -> value, and under "stages" figures beside
        seconds and bytes, {"stages": {NAME: figures}}. Asked for also where nothing of it is built.
    read : (an artifact, its node id) -> what its files hold for the report, None for nothing;
        None where its report needs no file.
    report : (the whole summary, the view with what was read) -> pieces of `report.html`.
    remarks : what is off, why, and the setting that mends it; those of later stages are said first.
    inspect : (facts of an artifact, facts of the judge that advised it) -> tables of `stockpot
        inspect`.
    """

    summary: Callable[[View], Mapping[str, Any]] = _no_figures
    read: Callable[[Reader, str], Any] | None = None
    report: Callable[[Mapping[str, Any], View], Iterable[Block]] = _no_blocks
    remarks: Callable[[View], Iterable[str]] = _no_remarks
    inspect: Callable[[Facts, Facts], Iterable[str]] = _no_tables


@dataclass(frozen=True)
class Stage(Generic[P]):
    """Description of a stage.

    Attributes
    ----------
    name, version : the stage's name and the version of its algorithm, both hashed into every key.
    exact : same inputs give the same bytes on any number of workers and threads.
    params : frozen dataclass of resolved parameters, hashed.
    roles : names of its input artifacts ("ingredient*" means one or more: ingredient:0,
        ingredient:1, ...).
    reads : dotted recipe keys it may read; `resolve` is given these and no others.
    resolve : (recipe values, facts of each input by role) -> params, with every "auto" resolved;
        None where there is nothing to build: who reads it then does without.
    run : compute one shard; returns its facts (JSON), handed to `finish`.
    cost : (params, facts of each input by role) -> projection.
    shards : (params, inputs) -> the shards; at least one. Without this function: one, named "all".
    finish : after all shards: (params, inputs, shards' readers by shard name, writer) -> facts of
        the artifact; without this function they are those of its one shard. Files the shards wrote
        become payload under their own names; names must differ between shards. Shard files whose
        name starts with "part-" are for `finish` only and are dropped at commit.
    planning : its recipe section, its nodes of a recipe, and guesses.
    reporting : what it says in summary, report, remarks and inspect.
    """

    name: str
    version: int
    exact: bool
    params: type[P]
    roles: tuple[str, ...]
    reads: tuple[str, ...]
    resolve: Callable[[Mapping[str, Any], Mapping[str, Facts]], P | None]
    run: Callable[[P, Inputs, Shard, Writer], dict[str, Any]]
    cost: Callable[[P, Mapping[str, Facts]], Cost]
    shards: Callable[[P, Inputs], Sequence[Shard]] = _whole
    finish: Callable[[P, Inputs, Mapping[str, Reader], Writer], dict[str, Any]] = _its_facts
    planning: Planning = field(default_factory=Planning)
    reporting: Reporting = field(default_factory=Reporting)
