"""A long step always says how far it is: bars on a terminal, throttled plain lines anywhere
else.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

from stockpot.stages.show.printable import printable
from stockpot.store.attempt import FINISH

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Display", "Fraction", "Plain", "Silent", "display"]

PLAIN_EVERY_S = 10.0
PACE_AFTER_S = 2.0
"""Seconds of progress from which the rest is reckoned."""
FINISH_SHARE = 0.05
"""Of a node's bar: what its finish takes, which joins the shards and commits."""
MOST_SHARE = 0.99
"""What a bar shows at most before its node is committed."""


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

    def expect(self, done: int, total: int) -> None:
        """`done` of `total` artifacts of this run are built; those found cached are in neither."""
        ...

    def start(self, node: str, shards: int) -> None:
        """`node` begins; `shards` tasks are left to do, and a finish."""
        ...

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None:
        """`finished` of the shards that were left are published; those in flight report what they
        have.
        """
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
    """Done share of what is left to do of a node, in [0, 1): it is never all before the node is
    committed.

    Published shards count whole, others by their own report; what comes after them, the finish, is
    the last part.
    """
    ended = _part(running[FINISH]) if FINISH in running else 0.0
    partial = sum(_part(f) for name, f in running.items() if name != FINISH)
    shared = min(1.0, (finished + partial) / shards) if shards else 1.0
    return min(MOST_SHARE, (1 - FINISH_SHARE) * shared + FINISH_SHARE * ended)


def _part(fraction: Fraction) -> float:
    return min(1.0, fraction.done / fraction.total) if fraction.total > 0 else 0.0


def newest(running: Mapping[str, Fraction]) -> str:
    """The text of the shard that is furthest, in words for a line."""
    fractions = sorted(running.values(), key=lambda f: f.done / max(1, f.total))
    if not fractions:
        return ""
    last = fractions[-1]
    return printable(f"{last.done}/{last.total} {last.text}".strip(), one_line=True)


@dataclass
class Pace:
    """How long a node still takes, from its progress since its first report.

    What was there before that report, the epochs of a checkpoint for one, was not done at this
    pace.
    """

    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)

    def to_go(self, done: float, now: float) -> str:
        """In words; empty as long as too little is known, and where it should have been done by
        now.

        Parameters
        ----------
        done : share of the node, as `share` has it.
        now : seconds of a monotonic clock.
        """
        if self.first is None:
            self.first = self.last = (now, done)
        if done != self.last[1]:
            self.last = (now, done)
        since, before = self.first
        at, reached = self.last
        if at - since < PACE_AFTER_S or reached <= before:
            return ""
        rest = (1 - reached) * (at - since) / (reached - before) - (now - at)
        return f"{_duration(rest)} to go" if rest > 0 else ""


def _duration(seconds: float) -> str:
    """About how long, in the largest unit that fits.

    >>> _duration(42), _duration(130), _duration(7200)
    ('42 s', '2 min', '2.0 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Silent:
    """Shows nothing (`--json`)."""

    def say(self, text: str) -> None:
        """Warnings still go to stderr."""
        print(printable(text), file=sys.stderr, flush=True)

    def expect(self, done: int, total: int) -> None: ...

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
    _paces: dict[str, Pace] = field(default_factory=dict)
    _count: str = ""

    def say(self, text: str) -> None:
        print(printable(text), file=self.stream, flush=True)

    def expect(self, done: int, total: int) -> None:
        self._count = f"{done} of {total}"

    def start(self, node: str, shards: int) -> None:
        self._shards[node] = shards
        self._spoken[node] = time.monotonic()
        self._paces[node] = Pace()
        self.say(f"{node:<18} started, {shards} shard{'s' if shards != 1 else ''}")

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None:
        now = time.monotonic()
        done = share(finished, self._shards.get(node, 1), running)
        to_go = self._paces.setdefault(node, Pace()).to_go(done, now)
        if now - self._spoken.get(node, now) < self.every_s:
            return
        self._spoken[node] = now
        self.say(
            f"{node:<18} {done:4.0%}  {', '.join(filter(None, (newest(running), to_go)))}".rstrip()
        )

    def stop(self, node: str, seconds: float | None, text: str = "") -> None:
        self.say(_ended(node, seconds, text or (self._count if seconds is not None else "")))

    def close(self) -> None: ...


def _ended(node: str, seconds: float | None, text: str) -> str:
    return (
        f"{node:<18} {'failed' if seconds is None else f'done in {seconds:.1f} s'}  {text}".rstrip()
    )


class _Bars:
    """A bar per node under way, gone when it is done, above one of all artifacts to build; a line
    remains.
    """

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

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
        self._paces: dict[str, Pace] = {}
        self._all: Any = None
        self._progress.start()

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, soft_wrap=True)

    def expect(self, done: int, total: int) -> None:
        if self._all is None:
            self._all = self._progress.add_task("all", total=total, text="")
        self._progress.update(
            self._all, completed=done, total=total, text=f"{done} of {total} artifacts"
        )

    def start(self, node: str, shards: int) -> None:
        self._shards[node] = shards
        self._paces[node] = Pace()
        self._tasks[node] = self._progress.add_task(node, total=1.0, text="")

    def update(self, node: str, finished: int, running: Mapping[str, Fraction]) -> None:
        if node in self._tasks:
            done = share(finished, self._shards[node], running)
            to_go = self._paces[node].to_go(done, time.monotonic())
            text = ", ".join(filter(None, (newest(running), to_go)))
            self._progress.update(self._tasks[node], completed=done, text=text)

    def stop(self, node: str, seconds: float | None, text: str = "") -> None:
        if node in self._tasks:
            self._progress.remove_task(self._tasks.pop(node))
        self.say(_ended(node, seconds, text))

    def close(self) -> None:
        self._progress.stop()
