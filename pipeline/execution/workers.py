"""No worker ever holds more projected bytes than it may use, and none runs two tasks at once.

`LocalWorkers` shares one budget between processes of its own; `LentWorkers` places tasks on the
workers of a scheduler that somebody else started, each with a limit of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from stockpot.errors import BadInput, OverBudget
from stockpot.execution.probe import SAME, Answer, answer, software
from stockpot.execution.task import execute
from stockpot.planning.budget import WORKER_BYTES, Budget, granted
from stockpot.stages.show.plain import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stockpot.execution.cluster import Cluster, Member, Outcome
    from stockpot.execution.probe import Probe
    from stockpot.execution.progress import Display
    from stockpot.execution.task import Task
    from stockpot.stages.stage import Cost

__all__ = ["LentWorkers", "LocalWorkers", "Workers"]

APPEAR_S = 60.0
"""How long a run waits for a worker where there is none that could take its tasks."""
ANSWER_S = 60.0
LOOK_EVERY_S = 1.0


class Workers(Protocol):
    """What `stockpot.execution.run` hands tasks to."""

    @property
    def busy(self) -> bool:
        """Whether a task is in flight."""
        ...

    def refuse(self, projected: Iterable[tuple[str, Cost]]) -> None:
        """Raise `OverBudget` where one of (node id, projection of one of its tasks) can run
        nowhere.
        """
        ...

    def submit(self, tag: Any, cost: Cost, task: Task) -> bool:
        """Start a task and grant it memory: its peak, or less down to what it needs; False where no
        worker has room.
        """
        ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes that have arrived; each makes room."""
        ...

    def close(self, *, now: bool = False) -> None:
        """End what is in flight and give the workers back."""
        ...


class LocalWorkers:
    """Worker processes of this machine, as many as the budget carries beside the tasks in flight.

    Parameters
    ----------
    budget : memory of all together.
    largest : largest projected peak known now: so many workers are started that it fits beside
        them.
    """

    def __init__(self, budget: Budget, largest: int, cluster: Cluster | None = None) -> None:
        self._budget = budget
        self._most = budget.workers or budget.cores
        self._count = min(self._most, self._beside(largest))
        self._flying: dict[Any, int] = {}
        self._cluster = cluster or _start_local(
            self._count, max(WORKER_BYTES, budget.memory_bytes), budget.cores
        )

    @property
    def busy(self) -> bool:
        return bool(self._flying)

    @property
    def cluster(self) -> Cluster:
        """The processes themselves."""
        return self._cluster

    def refuse(self, projected: Iterable[tuple[str, Cost]]) -> None:
        """Tasks over the budget were refused before the workers were started."""

    def submit(self, tag: Any, cost: Cost, task: Task) -> bool:
        # All it wants where that fits beside the workers.
        share = granted(cost, self._budget.memory_bytes - self._count * WORKER_BYTES)
        if not self._make_room(share):
            return False
        self._flying[tag] = share
        self._cluster.submit(tag, execute, replace(task, memory_bytes=share))
        return True

    def _beside(self, peak: int) -> int:
        """Workers the budget carries beside a peak."""
        return max(1, (self._budget.memory_bytes - peak) // WORKER_BYTES)

    def _make_room(self, peak: int) -> bool:
        """Whether one more task of this peak fits. Idle workers are stopped for a large one,
        started for small ones.
        """
        carried = min(self._most, self._beside(sum(self._flying.values()) + peak))
        if carried < self._count:
            if self._flying:
                return False  # its time comes when those in flight are done
            self._scale(carried)
        if len(self._flying) < self._count:
            return True
        if carried > self._count:
            self._scale(self._count + 1)
            return True
        return False

    def _scale(self, count: int) -> None:
        self._cluster.scale(count)
        self._count = count

    def wait(self, timeout_s: float) -> list[Outcome]:
        found = self._cluster.wait(timeout_s)
        for outcome in found:
            self._flying.pop(outcome.tag, None)
        return found

    def close(self, *, now: bool = False) -> None:
        self._cluster.close(now=now)


def _start_local(workers: int, memory_bytes: int, cores: int) -> Cluster:
    from stockpot.execution.cluster import start_local

    return start_local(workers, memory_bytes, cores)


@dataclass
class _Lent:
    """A worker of somebody's cluster. `limit_bytes` is known, and tasks are placed on it, once it
    is `ready`.
    """

    member: Member
    reply: str = ""
    ready: bool = False
    limit_bytes: int = 0
    flying: Any = None


@dataclass(frozen=True)
class _Asked:
    """Tag of a probe."""

    address: str
    reply: str


class LentWorkers:
    """Workers of a scheduler elsewhere: probed, then one task at a time on each, within its own
    memory limit.

    Workers that come later are used after their probe; one that goes has its task reported lost.

    Parameters
    ----------
    budget : `workers` bounds how many are used, `memory_bytes` what a task may use on any of them.
    """

    def __init__(self, cluster: Cluster, probe: Probe, budget: Budget, show: Display) -> None:
        self._cluster = cluster
        self._probe = probe
        self._budget = budget
        self._show = show
        self._workers: dict[str, _Lent] = {}
        self._looked = 0.0
        self._declined: int | None = None
        self._starved: float | None = None

    def start(self) -> None:
        """Wait for a first worker and probe all there are.

        Raises
        ------
        BadInput
            No worker came, or one of those that are there cannot take part.
        """
        where = self._budget.scheduler
        self._ask_scheduler()
        deadline = time.monotonic() + APPEAR_S
        if not self._cluster.members():
            self._show.say(f"cluster {where}: no workers yet; waiting {APPEAR_S:.0f} s for one")
        while not self._look():
            if time.monotonic() > deadline:
                raise BadInput(
                    f"cluster {where}: no worker came within {APPEAR_S:.0f} s",
                    fix=self._start_one(),
                )
            time.sleep(0.2)
        deadline = time.monotonic() + ANSWER_S
        while waiting := [w.member.address for w in self._workers.values() if not w.ready]:
            for outcome in self._cluster.wait(0.2):
                self._answered(outcome, strict=True)
            if time.monotonic() > deadline:
                if len(waiting) == len(self._workers):
                    raise BadInput(
                        f"cluster {where}: worker {waiting[0]} does not answer within "
                        f"{ANSWER_S:.0f} s",
                        fix="look into its log, or start another one",
                    )
                self._show.say(f"worker {waiting[0]} does not answer yet; it is used when it does")
                break
        ready = [w for w in self._workers.values() if w.ready]
        threads, memory = sum(w.member.threads for w in ready), sum(w.limit_bytes for w in ready)
        self._show.say(
            f"cluster {where}: {len(ready)} worker{'s' if len(ready) != 1 else ''}, {threads} "
            f"threads, "
            f"{human_bytes(memory)}; dashboard {self._cluster.dashboard or 'none'}"
        )

    def _ask_scheduler(self) -> None:
        """The scheduler unpickles tasks on their way: it must have stockpot too."""
        where = self._budget.scheduler
        fix = f"{SAME}, restart the scheduler from there and run again"
        try:
            found = self._cluster.ask_scheduler(software)
        except ImportError as error:
            raise BadInput(
                f"scheduler {where}: it cannot import stockpot: {error}", fix=fix
            ) from error
        own = software()
        for name in ("stockpot", "python", "dask", "distributed"):
            if found[name] != own[name]:
                raise BadInput(
                    f"scheduler {where}: {name}: expected {own[name]}, found {found[name]}", fix=fix
                )

    def _start_one(self) -> str:
        return f"dask worker {self._budget.scheduler} --nthreads 1 --memory-limit 4GB"

    @property
    def busy(self) -> bool:
        return any(w.flying is not None for w in self._workers.values())

    def refuse(self, projected: Iterable[tuple[str, Cost]]) -> None:
        best = max(
            (w for w in self._workers.values() if w.ready),
            key=lambda w: w.limit_bytes,
            default=None,
        )
        over = [
            (cost, node) for node, cost in projected if best and not self._fits(best, cost.needed)
        ]
        over.sort(key=lambda o: -o[0].needed)
        if best is None or not over:
            return
        need = human_bytes(over[0][0].needed + WORKER_BYTES, up=True)
        listed = ", ".join(
            f"{node} {human_bytes(cost.needed + WORKER_BYTES)}" for cost, node in over[:5]
        )
        mends = dict.fromkeys(
            cost.mend or "smaller records (batches.outputs, batches.top_k)" for cost, _ in over
        )
        allowed = f"{human_bytes(best.limit_bytes)} on {best.member.address}"
        raise OverBudget(
            f"projected memory of a task exceeds every worker's limit: {listed}; allowed {allowed}",
            fix=f"start a worker with --memory-limit {need.replace(' ', '')}, or "
            f"{' and '.join(mends)}",
        )

    @staticmethod
    def _fits(worker: _Lent, peak: int) -> bool:
        return peak + WORKER_BYTES <= worker.limit_bytes

    def submit(self, tag: Any, cost: Cost, task: Task) -> bool:
        flying = sum(w.flying is not None for w in self._workers.values())
        if flying and flying >= (self._budget.workers or flying + 1):
            return False
        free = [
            w
            for w in self._workers.values()
            if w.ready and w.flying is None and not w.member.paused and self._fits(w, cost.needed)
        ]
        if not free:
            self._declined = min(cost.needed, self._declined or cost.needed)
            return False
        worker = min(free, key=lambda w: w.limit_bytes)  # larger ones are kept for larger tasks
        worker.flying = tag
        share = granted(cost, worker.limit_bytes - WORKER_BYTES)
        lent = replace(task, threads=worker.member.threads, memory_bytes=share)
        self._cluster.submit(tag, execute, lent, worker=worker.member.address)
        return True

    def _starve(self, peak: int) -> None:
        """Nothing runs and nothing can: a worker may still come, but not for ever."""
        now = time.monotonic()
        need = human_bytes(peak + WORKER_BYTES, up=True)
        if self._starved is None:
            self._starved = now
            self._show.say(
                f"no worker has {need} for the next task; waiting {APPEAR_S:.0f} s for one"
            )
        elif now - self._starved > APPEAR_S:
            raise BadInput(
                f"cluster {self._budget.scheduler}: no worker with {need} for the next task within "
                f"{APPEAR_S:.0f} s",
                fix=f"{self._start_one()}, then run the same command again: it continues where it "
                f"stopped",
            )

    def wait(self, timeout_s: float) -> list[Outcome]:
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._look()
        if self._declined is not None and not self.busy:
            self._starve(self._declined)
        else:
            self._starved = None
        self._declined = None
        found = []
        for outcome in self._cluster.wait(timeout_s):
            if isinstance(outcome.tag, _Asked):
                self._answered(outcome, strict=False)
                continue
            for worker in self._workers.values():
                if worker.flying == outcome.tag:
                    worker.flying = None
            found.append(outcome)
        return found

    def _look(self) -> bool:
        """Notice workers that came and went; whether there is any."""
        self._looked = time.monotonic()
        members = self._cluster.members()
        for address in self._workers.keys() - members.keys():
            gone = self._workers.pop(address)
            if gone.flying is not None:
                self._cluster.abandon(gone.flying)
        for address, member in members.items():
            if address in self._workers:
                self._workers[address].member = member
                continue
            question = self._probe.question()
            self._workers[address] = _Lent(member, question[2])
            self._cluster.ask(_Asked(address, question[2]), address, answer, *question)
        return bool(members)

    def _answered(self, outcome: Outcome, *, strict: bool) -> None:
        """A worker's answer to its probe; where it cannot take part, an error if `strict`, else it
        is left alone.
        """
        worker = self._workers.get(outcome.tag.address)
        if worker is None or worker.reply != outcome.tag.reply:
            return
        who = worker.member.address
        try:
            if isinstance(outcome.error, ImportError):
                raise BadInput(
                    f"worker {who}: it cannot import stockpot: {outcome.error}",
                    fix=f"{SAME}, restart the worker",
                )
            if not isinstance(outcome.value, Answer):
                if who in self._cluster.members():
                    raise BadInput(
                        f"worker {who}: its probe failed: {outcome.error}", fix="look into its log"
                    )
                del self._workers[who]  # it went while it was asked
                return
            warning = self._probe.judge(who, worker.reply, outcome.value)
        except BadInput as error:
            if strict:
                raise
            self._show.say(f"not used: {error}")
            return
        if warning:
            self._show.say(warning)
        limits = (worker.member.memory_bytes, outcome.value.memory_bytes, self._budget.memory_bytes)
        worker.limit_bytes = min(limit for limit in limits if limit)
        worker.ready = True
        if not strict:
            self._show.say(f"worker {who} on {outcome.value.host} joined")

    def close(self, *, now: bool = False) -> None:
        self._cluster.close(now=now)
        self._probe.close()
