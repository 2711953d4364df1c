"""Several processes that train one model: what rank 0 starts, how they find each other, and what ends them all.

Rank 0 is the process of the task. The others are processes of their own on this machine, or where a launcher such as
torchrun has started one for every rank, processes that those start. A rank that ends early ends all of them.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stages.errors import Conflict, StockpotError
from stages.exchange import forward as rows
from stages.exchange.step import CoopStep
from stages.train.evaluate import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from stages.stage import Inputs
    from stages.step import Step
    from stages.train.model import Network

__all__ = [
    "Member",
    "Team",
    "here",
    "jobs_key",
    "joined",
    "launched",
    "launcher_store",
    "led",
    "place_on_machine",
    "raised",
]

TIMEOUT = timedelta(minutes=10)  # longest that a rank waits for another: kernels are compiled, records first read
LEAVE_S = 20.0  # for the others to end once rank 0 has
_ROOT = Path(__file__).resolve().parents[2]


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
        """Logits of the rank's own outputs; a collective where the rows of the step are shared among the ranks."""
        found: Any = model
        if isinstance(step, CoopStep):
            return rows.forward(found, step, self.group)
        if step.batch_size == 0:  # logits that have a gradient, of no output
            return step.y.new_zeros((0, int(model.config["num_classes"]))) + 0 * next(model.parameters()).sum()
        logits: Tensor = found(step.x, step.adjs)
        return logits

    def total(self, score: Score, *, flag: bool = False) -> tuple[Score, bool]:
        """(sum of the ranks' scores, rank 0's flag), the same on every rank: summed in the order of ranks."""
        mine = torch.tensor([score.correct, score.labelled, score.loss_sum, float(flag)], dtype=torch.float64)
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
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        distributed.all_reduce(flat, group=self.group)
        at = 0
        for p in parameters:
            p.grad = flat[at : at + p.numel()].view_as(p)
            at += p.numel()

    def add(self, values: Tensor) -> None:
        """Replace values by their sum over the ranks, in place."""
        distributed.all_reduce(values, group=self.group)

    def gathered(self, value: Any) -> list[Any]:
        """What every rank gives, in the order of ranks; small things."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, group=self.group)
        return found

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
                        f"train: rank {rank} opened as {role} {other.get(role)}, but rank 0 {artifact}",
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
        lines = [line for line in self.said.read().decode(errors="replace").splitlines() if line.strip()]
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


def launched(rank: int, job: bytes) -> Member:
    """Start one rank of a job; it ends when this process does."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the member
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.exchange.member", str(rank)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended at once: `ending` says how
        process.stdin.write(len(job).to_bytes(8, "little") + job)
        process.stdin.flush()  # and stays open: its end tells the rank that this process is gone
    return Member(rank, process, said)


def launcher_place() -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def place_on_machine(rank: int) -> int:
    """Number of a rank among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", rank)) if launcher_place() else rank


def jobs_key() -> str:
    """Key of a launcher's store that counts the jobs of this attempt, each under it and its number.

    Its store outlives a restart of the processes.
    """
    return f"stockpot/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/jobs"


def launcher_store() -> Any:
    """The store of the launcher that started this process as one of several ranks, None where none did.

    torchrun sets WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT, and keeps a store there.
    """
    if not launcher_place():
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=TIMEOUT)


@contextmanager
def led(size: int, work: Callable[..., Any], inputs: Inputs, *, device: str, **arguments: Any) -> Iterator[Team]:
    """Start ranks 1..size - 1, each of which calls `work(team, inputs=inputs, **arguments)`, and be rank 0 of them.

    What is handed over is pickled: `work` is a function of a module.

    Raises
    ------
    StockpotError
        A rank ended early: all were ended.
    """
    outside = launcher_store()
    host = "127.0.0.1" if outside is None else os.environ["MASTER_ADDR"]
    store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    job = pickle.dumps(
        {
            "host": host,
            "port": store.port,
            "size": size,
            "work": work,
            "inputs": dict(inputs),
            "device": device,
            "arguments": arguments,
        }
    )
    members: list[Member] = []
    if outside is None:
        members = [launched(rank, job) for rank in range(1, size)]
    else:
        outside.set(f"{jobs_key()}/{outside.add(jobs_key(), 1)}", job)
    try:
        _await(store, size, members)
        with joined(0, size, store, inputs, device) as team:
            yield team
        for member in members:
            member.process.wait(LEAVE_S)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        if isinstance(error, StockpotError) or not _of_connection(error):
            raise
        raise _lost(store, size, members, error) from error
    finally:
        for member in members:
            member.close()


def here(store: Any, rank: int) -> None:
    """Say that a rank has started and is about to join."""
    store.set(f"here/{rank}", b"1")


def raised(store: Any, rank: int, error: StockpotError) -> None:
    """Leave the error that ended a rank for rank 0, whose error it becomes."""
    store.set(f"raised/{rank}", pickle.dumps(error))


def _raised(store: Any, size: int) -> StockpotError | None:
    for rank in range(1, size):
        if store.check([f"raised/{rank}"]):
            found: StockpotError = pickle.loads(store.get(f"raised/{rank}"))  # noqa: S301 - of a rank of this job
            return found
    return None


def _await(store: Any, size: int, members: list[Member]) -> None:
    """Wait until all ranks are about to join: who waits inside torch does not see that one of them is gone."""
    until = time.monotonic() + TIMEOUT.total_seconds()
    for rank in range(1, size):
        while not store.check([f"here/{rank}"]):
            if any(member.process.poll() is not None for member in members) or _raised(store, size) is not None:
                raise _lost(store, size, members, RuntimeError(f"rank {rank} did not join"))
            if time.monotonic() > until:
                raise _lost(store, size, members, RuntimeError(f"rank {rank} did not join within {TIMEOUT}"))
            time.sleep(0.05)


def _of_connection(error: BaseException) -> bool:
    """Whether an error says that ranks lost each other; any other is rank 0's own."""
    return isinstance(error, subprocess.TimeoutExpired | distributed.DistError) or any(
        word in str(error).lower()
        for word in ("gloo", "nccl", "tcpstore", "socket", "connection", "timed out", "timeout")
    )


def _lost(store: Any, size: int, members: list[Member], error: BaseException) -> StockpotError:
    """The error of a training whose ranks lost each other: that of the rank which ended first, where it is known."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until and not any(member.ending() for member in members):
        time.sleep(0.05)  # a connection breaks before its process is gone
    if (own := _raised(store, size)) is not None:
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
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        team = Team(rank, size, local=place_on_machine(rank))
        team.agree({role: f"{reader.key} of digest {reader.digest}" for role, reader in sorted(inputs.items())})
        yield team
    except BaseException:
        if rank == 0:
            distributed.destroy_process_group()  # other ranks end with their process
        raise
    distributed.destroy_process_group()
