"""Several processes that train one model: what rank 0 starts, how they find each other, and what
ends them all.

Rank 0 is the process of the task. The others are processes of their own on this machine, or where a
launcher such as torchrun has started one for every rank, processes that those start. A rank that
ends early ends all of them.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import distributed

from stockpot.stages.errors import Conflict, StockpotError
from stockpot.stages.exchange import forward as rows
from stockpot.stages.exchange.rank_step import CoopStep
from stockpot.stages.package import child_environment
from stockpot.stages.processes.messages import encoded, error_of, message, name_of, received, told
from stockpot.stages.processes.rendezvous import (
    SECRET,
    TIMEOUT,
    jobs_key,
    launcher_place,
    launcher_store,
    listening,
    met,
    on_loopback,
)
from stockpot.stages.train.evaluate import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from stockpot.stages.stage import Inputs
    from stockpot.stages.step import Step
    from stockpot.stages.train.model import Network

__all__ = [
    "Job",
    "Member",
    "Team",
    "here",
    "joined",
    "launched",
    "led",
    "place_on_machine",
    "raised",
]


@dataclass(frozen=True)
class Team:
    """Ranks 0..size - 1 of one training, this one being `rank`."""

    rank: int
    size: int
    group: Any = None
    local: int = 0
    """Among the ranks of its machine: it takes that GPU."""

    def device(self, asked: str) -> str:
        """The device of this rank, of `train.device`."""
        return asked if asked == "cpu" else f"cuda:{self.local}"

    def forward(self, model: Network, step: CoopStep | Step) -> Tensor:
        """Logits of the rank's own outputs; a collective where the rows of the step are shared
        among the ranks.
        """
        found: Any = model
        if isinstance(step, CoopStep):
            return rows.forward(found, step, self.group)
        if step.batch_size == 0:  # logits that have a gradient, of no output
            return (
                step.y.new_zeros((0, int(model.config["num_classes"])))
                + 0 * next(model.parameters()).sum()
            )
        logits: Tensor = found(step.x, step.adjs)
        return logits

    def total(self, score: Score, *, flag: bool = False) -> tuple[Score, bool]:
        """(sum of the ranks' scores, rank 0's flag), the same on every rank: summed in the order of
        ranks.
        """
        mine = torch.tensor(
            [score.correct, score.labelled, score.loss_sum, float(flag)], dtype=torch.float64
        )
        found = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(found, mine, group=self.group)
        total = Score()
        for one in found:
            correct, labelled, loss = one[:3].tolist()
            total += Score(int(correct), int(labelled), loss)
        return total, bool(found[0][3])

    def add_gradients(self, model: Network) -> None:
        """Replace every gradient by its sum over the ranks; one collective."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
        )
        distributed.all_reduce(flat, group=self.group)
        at = 0
        for p in parameters:
            p.grad = flat[at : at + p.numel()].view_as(p)
            at += p.numel()

    def add(self, values: Tensor) -> None:
        """Replace values by their sum over the ranks, in place."""
        distributed.all_reduce(values, group=self.group)

    def gathered(self, value: Any) -> list[Any]:
        """What every rank gives, in the order of ranks; small things that JSON has, tuples arrive
        as lists.
        """
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.empty(1, dtype=torch.int64) for _ in range(self.size)]
        distributed.all_gather(sizes, torch.tensor([mine.numel()]), group=self.group)
        counts = [int(size) for size in sizes]
        padded = torch.zeros(max(counts), dtype=torch.uint8)
        padded[: mine.numel()] = mine
        found = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(found, padded, group=self.group)
        return [
            json.loads(one[:count].numpy().tobytes())
            for one, count in zip(found, counts, strict=True)
        ]

    def agree(self, identity: Mapping[str, str]) -> None:
        """Refuse ranks that opened different artifacts.

        Raises
        ------
        Conflict
            Naming the role, and the keys and digests of both.
        """
        found = self.gathered(dict(identity))
        for rank, other in enumerate(found):
            for role, artifact in found[0].items():
                if other.get(role) != artifact:
                    raise Conflict(
                        f"train: rank {rank} opened as {role} {other.get(role)}, but rank 0 "
                        f"{artifact}",
                        fix="give all ranks the same --store, on storage that all of them see",
                    )


@dataclass
class Member:
    """One started process, its rank and what it says."""

    rank: int
    process: subprocess.Popen[bytes]
    said: IO[bytes] = field(repr=False)

    def ending(self) -> str:
        """How it ended, "" while it runs or where it ended as it should."""
        code = self.process.poll()
        if not code:
            return ""
        self.said.seek(0)
        lines = [
            line for line in self.said.read().decode(errors="replace").splitlines() if line.strip()
        ]
        lines = [line for line in lines if not line.startswith("[rank")] or lines
        how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        return how + (f" ({lines[-1].strip()[:300]})" if lines else "")

    def close(self) -> None:
        """End it where it still runs, and let go of its pipes."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self.said.close()


@dataclass(frozen=True)
class Job:
    """One training as its ranks are told of it.

    Attributes
    ----------
    place : where they meet, see `rendezvous.met`.
    secret : hex; makes their messages theirs.
    work : name of the function that each calls.
    inputs : role -> (name of the reader's class, folder of the artifact).
    arguments : of the function, as `messages.encoded` makes them.
    """

    place: dict[str, Any]
    secret: str
    size: int
    work: str
    inputs: dict[str, list[str]]
    device: str
    arguments: dict[str, Any]

    @property
    def key(self) -> bytes:
        return bytes.fromhex(self.secret)


def launched(rank: int, job: Job) -> Member:
    """Start one rank of a job; it ends when this process does.

    The job goes through a pipe: what is in it, the secret too, is on no command line.
    """
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the member
    process = subprocess.Popen(
        [sys.executable, "-m", "stockpot.stages.processes.rank_process", str(rank)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env=child_environment(),
    )
    assert process.stdin is not None
    data = json.dumps(vars(job)).encode()
    with suppress(BrokenPipeError):  # it ended at once: `ending` says how
        process.stdin.write(len(data).to_bytes(8, "little") + data)
        process.stdin.flush()  # and stays open: its end tells the rank that this process is gone
    return Member(rank, process, said)


def place_on_machine(rank: int) -> int:
    """Number of a rank among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", rank)) if launcher_place() else rank


@contextmanager
def led(
    size: int, work: Callable[..., Any], inputs: Inputs, *, device: str, **arguments: Any
) -> Iterator[Team]:
    """Start ranks 1..size - 1, each of which calls `work(team, inputs=inputs, **arguments)`, and be
    rank 0 of them.

    What is handed over is JSON: `work` is a function of a module, `arguments` are what
    `messages.encoded` takes, and readers are opened anew by the `at` of their class.

    Raises
    ------
    StockpotError
        A rank ended early: all were ended.
    """
    outside = launcher_store()
    if outside is None:
        store, secret = listening(size), secrets.token_hex(32)
        place: dict[str, Any] = {"port": store.port}
    else:
        place, secret = {"prefix": f"{jobs_key()}/{secrets.token_hex(8)}"}, os.environ[SECRET]
        store = met(place, size)
    job = Job(
        place,
        secret,
        size,
        name_of(work),
        {role: [name_of(type(reader)), str(_root(reader))] for role, reader in inputs.items()},
        device,
        {name: encoded(value) for name, value in arguments.items()},
    )
    members: list[Member] = []
    if outside is None:
        members = [launched(rank, job) for rank in range(1, size)]
    else:
        number = f"{jobs_key()}/{outside.add(jobs_key(), 1)}"
        outside.set(number, message(job.key, number, vars(job) | {"secret": ""}))
    try:
        _await(store, job, members)
        with joined(0, size, store, inputs, device) as team:
            yield team
        for member in members:
            # The work is done: on a machine that has much else to do, leaving takes long.
            member.process.wait(TIMEOUT.total_seconds())
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        if isinstance(error, StockpotError) or not _of_connection(error):
            raise
        raise _lost(store, job, members, error) from error
    finally:
        for member in members:
            member.close()


def here(store: Any, rank: int) -> None:
    """Say that a rank has started and is about to join."""
    store.set(f"here/{rank}", b"1")


def raised(store: Any, rank: int, error: StockpotError, job: Job) -> None:
    """Leave the error that ended a rank for rank 0, whose error it becomes."""
    store.set(f"raised/{rank}", message(job.key, _raised_at(job, rank), told(error)))


def _raised_at(job: Job, rank: int) -> str:
    """Where the message with a rank's error belongs: no other training's can stand there."""
    return f"raised/{json.dumps(job.place, sort_keys=True)}/{rank}"


def _raised(store: Any, job: Job) -> StockpotError | None:
    for rank in range(1, job.size):
        if store.check([f"raised/{rank}"]):
            try:
                return error_of(
                    received(job.key, _raised_at(job, rank), store.get(f"raised/{rank}"))
                )
            except Conflict as error:
                return error
    return None


def _root(reader: Any) -> Path:
    """Folder of an artifact that other ranks open too."""
    root: Path = reader.root
    return root.absolute()


def _await(store: Any, job: Job, members: list[Member]) -> None:
    """Wait until all ranks are about to join: who waits inside torch does not see that one of them
    is gone.
    """
    until = time.monotonic() + TIMEOUT.total_seconds()
    for rank in range(1, job.size):
        while not store.check([f"here/{rank}"]):
            if (
                any(member.process.poll() is not None for member in members)
                or _raised(store, job) is not None
            ):
                raise _lost(store, job, members, RuntimeError(f"rank {rank} did not join"))
            if time.monotonic() > until:
                raise _lost(
                    store, job, members, RuntimeError(f"rank {rank} did not join within {TIMEOUT}")
                )
            time.sleep(0.05)


def _of_connection(error: BaseException) -> bool:
    """Whether an error says that ranks lost each other; any other is rank 0's own."""
    return isinstance(error, subprocess.TimeoutExpired | distributed.DistError) or any(
        word in str(error).lower()
        for word in ("gloo", "nccl", "tcpstore", "socket", "connection", "timed out", "timeout")
    )


def _lost(store: Any, job: Job, members: list[Member], error: BaseException) -> StockpotError:
    """The error of a training whose ranks lost each other: that of the rank which ended first,
    where it is known.
    """
    until = time.monotonic() + 5.0
    while time.monotonic() < until and not any(member.ending() for member in members):
        time.sleep(0.05)  # a connection breaks before its process is gone
    if (own := _raised(store, job)) is not None:
        return own
    found = [f"rank {member.rank}: {member.ending()}" for member in members if member.ending()]
    what = "; ".join(found) or f"the connection broke: {str(error).splitlines()[0][:200]}"
    return StockpotError(
        f"train: a rank ended early and all others with it: {what}",
        fix="run the same command again: training goes on from its last checkpoint",
    )


@contextmanager
def joined(rank: int, size: int, store: Any, inputs: Inputs, device: str) -> Iterator[Team]:
    """Join the ranks of a store, all of which must have opened the same artifacts."""
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    with on_loopback():
        yield from _joined(backend, rank, size, store, inputs)


def _joined(backend: str, rank: int, size: int, store: Any, inputs: Inputs) -> Iterator[Team]:
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )
    try:
        team = Team(rank, size, local=place_on_machine(rank))
        team.agree(
            {
                role: f"{reader.key} of digest {reader.digest}"
                for role, reader in sorted(inputs.items())
            }
        )
        yield team
    except BaseException:
        if rank == 0:
            distributed.destroy_process_group()  # other ranks end with their process
        raise
    distributed.destroy_process_group()
