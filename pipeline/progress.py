"""A long step always says how far it is: bars on a terminal, throttled plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

from pipeline.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Display", "Fraction", "Plain", "Silent", "display"]

PLAIN_EVERY_S = 10.0


@dataclass(frozen=True)
class Fraction:
    """Progress of one shard, as its task last reported it."""

    done: int
    total: int
    text: str = ""


class Display(Protocol):
    """What `run` tells the user while it works; totals are known before a node starts."""

    def say(self, text: str) -> None:
        """Print one line now."""
        ...

    def start(self, node: str, shards: int) -> None:
        """`node` begins; it has `shards` tasks and a finish."""
        ...

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None:
        """`finished` shards are published; the others report what they have."""
        ...

    def stop(self, node: str, seconds: float | None, text: str = "") -> None:
        """`node` is committed after `seconds`, or None: it stopped without."""
        ...

    def close(self) -> None: ...


def display(stream: IO[str], *, silent: bool = False) -> Display:
    """Bars where `stream` is a terminal, plain lines where it is not, nothing where `silent`."""
    if silent:
        return Silent()
    return _Bars(stream) if stream.isatty() else Plain(stream)


def share(finished: int, shards: int, running: Mapping[str, Fraction]) -> float:
    """Done share of a node in [0, 1]: published shards count whole, others by their own report."""
    partial = sum(min(1.0, f.done / f.total) for f in running.values() if f.total > 0)
    return min(1.0, (finished + partial) / max(1, shards))


def newest(running: Mapping[str, Fraction]) -> str:
    """The text of the shard that is furthest, in words for a line."""
    fractions = sorted(running.values(), key=lambda f: f.done / max(1, f.total))
    if not fractions:
        return ""
    last = fractions[-1]
    return printable(f"{last.done}/{last.total} {last.text}".strip(), one_line=True)


class Silent:
    """Shows nothing (`--json`)."""

    def say(self, text: str) -> None:
        """Warnings still go to stderr."""
        print(printable(text), file=sys.stderr, flush=True)

    def start(self, node: str, shards: int) -> None: ...

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None: ...

    def stop(self, node: str, seconds: float | None, text: str = "") -> None: ...

    def close(self) -> None: ...


@dataclass
class Plain:
    """One line when a node starts, ends, and every `every_s` seconds between."""

    stream: IO[str]
    every_s: float = PLAIN_EVERY_S
    _shards: dict[str, int] = field(default_factory=dict)
    _spoken: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        print(printable(text), file=self.stream, flush=True)

    def start(self, node: str, shards: int) -> None:
        self._shards[node] = shards
        self._spoken[node] = time.monotonic()
        self.say(f"{node:<18} started, {shards} shard{'s' if shards != 1 else ''}")

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None:
        now = time.monotonic()
        if now - self._spoken.get(node, now) < self.every_s:
            return
        self._spoken[node] = now
        done = share(finished, self._shards.get(node, 1), running)
        self.say(f"{node:<18} {done:4.0%}  {newest(running)}".rstrip())

    def stop(self, node: str, seconds: float | None, text: str = "") -> None:
        self.say(f"{node:<18} {'failed' if seconds is None else f'done in {seconds:.1f} s'}  {text}".rstrip())

    def close(self) -> None: ...


class _Bars:
    """A bar per node under way, gone when it is done; a line remains."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(file=stream, highlight=False),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, Any] = {}
        self._shards: dict[str, int] = {}
        self._progress.start()

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, soft_wrap=True)

    def start(self, node: str, shards: int) -> None:
        self._shards[node] = shards
        self._tasks[node] = self._progress.add_task(node, total=1.0, text="")

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None:
        if node in self._tasks:
            done = share(finished, self._shards[node], running)
            self._progress.update(self._tasks[node], completed=done, text=newest(running))

    def stop(self, node: str, seconds: float | None, text: str = "") -> None:
        if node in self._tasks:
            self._progress.remove_task(self._tasks.pop(node))
        self.say(f"{node:<18} {'failed' if seconds is None else f'done in {seconds:.1f} s'}  {text}".rstrip())

    def close(self) -> None:
        self._progress.stop()
