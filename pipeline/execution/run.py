"""Every node ends committed once, whatever dies: the loop plans, hands out shards and asks the
store what stands.

The loop knows no algorithm and moves no data. It looks at a node when its inputs are committed,
skips what is there, sends what is missing to worker processes, and finishes the node when all its
shards are published.
"""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.errors import Corrupt, CorruptArtifact, CorruptShard, NonDeterminism, StockpotError
from stockpot.execution.job import Job, RunError, Tag
from stockpot.execution.progress import Display, Fraction
from stockpot.execution.semaphores import clear_dead
from stockpot.execution.task import FINISH, Task, open_inputs
from stockpot.execution.workers import LentWorkers, LocalWorkers
from stockpot.planning.budget import Budget, refuse
from stockpot.planning.registry import STAGES
from stockpot.stages.node import NODES, SOURCE
from stockpot.stages.stage import Cost, Shard
from stockpot.store.keys import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stockpot.execution.cluster import Cluster, Outcome
    from stockpot.execution.task import ShardResult
    from stockpot.execution.workers import Workers
    from stockpot.planning.plan import Planned, Planner
    from stockpot.stages.node import Node
    from stockpot.store.store import Store

__all__ = ["Runner"]

POLL_S = 0.25
RETRIES = 3
"""Times a task is started again after its worker died, and a damaged artifact or shard is built
anew."""


class Runner:
    """Builds the planned nodes that are not committed.

    Parameters
    ----------
    planner : plans every node against the store.
    budget : memory and cores, and where tasks run.
    show : where progress goes.
    start : what was planned -> workers; called only if something must be built.
    report : where Dask's own report goes; None: none is written.
    """

    def __init__(
        self,
        planner: Planner,
        store: Store,
        budget: Budget,
        show: Display,
        start: Callable[[Sequence[Planned]], Workers] | None = None,
        report: Path | None = None,
    ) -> None:
        self.planner = planner
        self.store = store
        self.budget = budget
        self.show = show
        self._hire = start or (self._local_workers if budget.local else self._lent_workers)
        self._report = report
        self._cluster: Cluster | None = None
        self._workers: Workers | None = None
        self._nodes: dict[str, Node] = {}
        self._plans: dict[str, Planned] = {}
        self._jobs: dict[str, Job] = {}
        self._serial: dict[str, int] = {}
        self._failed: dict[str, BaseException] = {}
        self._repairs: dict[str, int] = {}
        self._forced: dict[str, str] = {}
        self.built: set[str] = set()
        """Ids of the nodes this run built."""

    def run(self, targets: Sequence[str] = ()) -> dict[str, Planned]:
        """Build the targets and their ancestors; everything where none is named.

        Returns
        -------
        Node id -> its plan, all cached now.

        Raises
        ------
        OverBudget
            A task is projected not to fit: before anything is started, or when the facts of its
            inputs are known.
        StockpotError
            The first error of a stage, when all that does not depend on it is done.
        """
        clear_dead()
        planned = self.planner.plan(targets)
        if (absent := self.planner.absent) is not None:
            raise absent
        refuse(
            self.budget,
            [(p.node.id, p.cost) for p in planned if p.cost is not None and not p.cached],
        )
        self._nodes = {p.node.id: p.node for p in planned}
        for p in planned:
            if p.cached:
                self._plans[p.node.id] = p
        if len(self._plans) == len(planned):
            return self._plans
        self._count()
        self.store.check_writable()
        self.store.clean_work()
        calm = False
        try:
            self._workers = self._hire(planned)
            self._loop(self._workers)
            calm = True
        finally:
            self._release(calm)
        if self._failed:
            raise self._first_failure()
        return self._plans

    # --- workers

    def _local_workers(self, planned: Sequence[Planned]) -> Workers:
        largest = max(
            (p.cost.needed for p in planned if p.cost is not None and not p.cached), default=0
        )
        workers = LocalWorkers(self.budget, largest)
        self._record(workers.cluster)
        return workers

    def _lent_workers(self, planned: Sequence[Planned]) -> Workers:
        from stockpot.execution.cluster import connect
        from stockpot.execution.probe import Probe

        read = {name for p in planned if not p.cached for name in p.node.inputs.values()}
        described = [self.planner.source(name).source for name in (SOURCE, NODES) if name in read]
        sources = [Path(path) for source in described for path in source.files.values()]
        cluster = connect(self.budget.scheduler)
        try:
            workers = LentWorkers(cluster, Probe(self.store.root, sources), self.budget, self.show)
        except BaseException:
            cluster.close(now=True)
            raise
        self._workers = workers  # closed also where its start fails
        workers.start()
        workers.refuse(
            [(p.node.id, p.cost) for p in planned if p.cost is not None and not p.cached]
        )
        self._record(cluster)
        return workers

    def _record(self, cluster: Cluster) -> None:
        if self._report is not None:
            cluster.record()
            self._cluster = cluster

    def _release(self, calm: bool) -> None:
        if self._workers is None:
            return
        try:
            if calm and self._cluster is not None and self._report is not None:
                try:
                    self._cluster.report(self._report)
                except Exception as error:  # noqa: BLE001
                    # The run itself is done; the report is a courtesy.
                    self.show.say(f"{self._report}: not written: {type(error).__name__}: {error}")
        finally:
            self._workers.close(now=not calm)

    # --- the loop

    def _loop(self, workers: Workers) -> None:
        while True:
            self._begin_ready(workers)
            if not self._jobs and not workers.busy:
                return
            self._hand_out(workers)
            for outcome in workers.wait(POLL_S):
                self._settle(outcome)
            self._tell()

    def _begin_ready(self, workers: Workers) -> None:
        """Look at every node whose inputs are committed; those found committed may make others
        ready.
        """
        moved = True
        while moved:
            moved = False
            for node in list(self._nodes.values()):
                done_or_begun = (
                    node.id in self._plans or node.id in self._jobs or node.id in self._failed
                )
                # A parent that is not among the nodes has nothing to build.
                waits = any(
                    parent in self._nodes and parent not in self._plans for parent in node.parents
                )
                if done_or_begun or waits:
                    continue
                try:
                    moved |= self._begin(node, workers)
                except Corrupt as error:
                    if isinstance(error, CorruptArtifact):
                        self.store.quarantine(error.stage, error.key, error.message)
                    self._rebuild(node.id, error)
                    moved = True
                except Exception as error:  # noqa: BLE001
                    # Other nodes go on; the first error is raised at the end.
                    self._fail(node.id, error, traceback.format_exc())

    def _begin(self, node: Node, workers: Workers) -> bool:
        """Plan a node; True where it is committed already, or turns out to have nothing to
        build.
        """
        planned = self.planner.look(node, self._plans)
        if planned is None:
            del self._nodes[node.id]
            return True
        if planned.damaged is not None:
            self.show.say(f"{node.id:<18} damaged: {planned.damaged}; set aside and built anew")
            self.store.quarantine(node.stage, str(planned.key), planned.damaged)
        elif node.id in self.planner.force and node.id not in self._forced:
            self._set_forced_aside(planned)
        if planned.cached:
            self._plans[node.id] = planned
            self._count()
            return True
        if planned.cost is not None:
            # The plan knew less: now the facts of all inputs are real.
            refuse(self.budget, [(node.id, planned.cost)])
            workers.refuse([(node.id, planned.cost)])
        self._start(planned)
        return False

    def _set_forced_aside(self, planned: Planned) -> None:
        node, key = planned.node, str(planned.key)
        self._forced[node.id] = ""
        # Shards and checkpoints that a killed run left are no new build either.
        if (where := self.store.set_work_aside(key, "forced to be built again")) is not None:
            self.show.say(f"{node.id:<18} forced: work in progress was set aside as {where}")
        if not self.store.committed(node.stage, key):
            return
        with suppress(Corrupt):
            self._forced[node.id] = self.store.open(node.stage, key).digest
        where = self.store.quarantine(node.stage, key, "forced to be built again")
        self.show.say(f"{node.id:<18} forced: the artifact was set aside as {where}")

    def _start(self, planned: Planned) -> None:
        node, stage = planned.node, STAGES[planned.node.stage]
        inputs = planned.inputs or {}
        shards = list(stage.shards(planned.params, open_inputs(self.store, inputs)))
        names = tuple(shard.name for shard in shards)
        if len(set(names)) != len(names) or not names:
            raise StockpotError(
                f"stage {stage.name}: expected shards of different names, found {list(names)}"
            )
        threads = self._threads(planned, len(shards))
        tasks = {
            shard.name: Task(
                store_root=str(self.store.root.absolute()),
                node_id=node.id,
                stage_name=stage.name,
                key=str(planned.key),
                params=plain(planned.params),
                inputs=inputs,
                shard=shard,
                shards=names,
                exact=stage.exact,
                threads=threads,
                device=str(getattr(planned.params, "device", "cpu")),
            )
            for shard in (*shards, Shard(FINISH))
        }
        published = set(self.store.work_in_progress(str(planned.key))["shards"]) & set(names)
        job = Job(
            planned,
            tasks,
            [name for name in names if name not in published],
            published,
            before=len(published),
        )
        if not job.queue:
            job.queue.append(FINISH)
        self._serial[node.id] = self._serial.get(node.id, 0) + 1
        self._jobs[node.id] = job
        self.show.start(node.id, len(names) - job.before)
        if published:
            self.show.say(
                f"{node.id:<18} {len(published)} of {len(names)} shards are there from before"
            )

    def _threads(self, planned: Planned, shards: int) -> int:
        """Threads of a task: a function of the recipe and this machine alone, so that training
        resumes bit for bit.
        """
        alike = sum(node.stage == planned.node.stage for node in self.planner.nodes)
        tasks = min(self.budget.workers or self.budget.cores, shards + alike - 1)
        return max(1, self.budget.cores // max(1, tasks))

    def _hand_out(self, workers: Workers) -> None:
        """Start queued tasks as long as there are workers with room for them."""
        for node_id, job in self._jobs.items():
            cost = job.planned.cost or Cost(0, 0, 0)
            while job.queue:
                name = job.queue[0]
                if not workers.submit(
                    Tag(node_id, name, self._serial[node_id]), cost, job.tasks[name]
                ):
                    break
                job.flying.add(job.queue.pop(0))

    def _settle(self, outcome: Outcome) -> None:
        tag = outcome.tag
        job = self._jobs.get(tag.node)
        if job is None or tag.serial != self._serial[tag.node]:
            return  # its node was begun again or has failed: whatever it published, the store knows
        job.flying.discard(tag.shard)
        if outcome.value is not None and not outcome.value.reused:
            now = time.monotonic()
            job.ran.append((now - outcome.value.seconds, now))
        if outcome.lost:
            self._lost(job, tag)
        elif isinstance(outcome.error, CorruptShard) and outcome.error.key == job.planned.key:
            self._redo_shard(job, tag, outcome.error)
        elif isinstance(outcome.error, Corrupt):
            self._rebuild(tag.node, outcome.error)
        elif outcome.error is not None:
            self._fail(tag.node, outcome.error, outcome.trace, tag.shard)
        elif tag.shard == FINISH:
            self._finished(job, outcome.value)
        else:
            job.finished.add(tag.shard)
            if not job.queue and not job.flying:
                job.queue.append(FINISH)

    def _finished(self, job: Job, result: ShardResult) -> None:
        node = job.planned.node
        before = self._forced.get(node.id)
        if before and STAGES[node.stage].exact and before != result.digest:
            error = NonDeterminism(
                f"{node.id}: built again by --force, this exact stage gave digest {result.digest}, "
                f"before {before}",
                fix="check this machine's memory and library versions; the old artifact is in the "
                "store's quarantine",
            )
            self._fail(node.id, error, "")
            return
        self.planner.force.discard(node.id)
        self.store.await_committed(node.stage, str(result.key))
        planned = self.planner.look(node, self._plans)
        if planned is None or not planned.cached:
            raise StockpotError(
                f"{node.id}: built as {result.key}, but the store does not show it as committed"
            )
        del self._jobs[node.id]
        self._plans[node.id] = planned
        self.built.add(node.id)
        self._count()
        self.show.stop(node.id, job.seconds)

    # --- what goes wrong

    def _lost(self, job: Job, tag: Tag) -> None:
        count = job.lost[tag.shard] = job.lost.get(tag.shard, 0) + 1
        what = "finish" if tag.shard == FINISH else f"shard {tag.shard}"
        if count > RETRIES:
            error = RunError(
                f"{tag.node}, {what}: its worker process died {count} times (killed, out of "
                f"memory, or a crash in "
                "native code)",
                fix="lower resources.workers or raise resources.memory, then run the same command: "
                "it resumes",
            )
            self._fail(tag.node, error, "")
            return
        self.show.say(
            f"{tag.node:<18} {what}: its worker died; started again ({count} of {RETRIES})"
        )
        job.queue.insert(0, tag.shard)

    def _redo_shard(self, job: Job, tag: Tag, error: CorruptShard) -> None:
        if self._too_often(f"{tag.node}/{error.shard}"):
            self._fail(tag.node, error, "", tag.shard)
            return
        self.show.say(f"{tag.node:<18} damaged: {error.message}; set aside and computed anew")
        for name in dict.fromkeys((error.shard, tag.shard)):
            job.finished.discard(name)
            if (
                name != FINISH
                and name in job.tasks
                and name not in job.queue
                and name not in job.flying
            ):
                job.queue.append(name)
        if not job.queue and not job.flying:
            job.queue.append(FINISH)

    def _rebuild(self, node_id: str, error: Corrupt) -> None:
        """An input of `node_id` was damaged and is set aside: build it again, then everything that
        waits for it.
        """
        damaged = [
            n for n, p in self._plans.items() if not self.store.committed(p.node.stage, str(p.key))
        ]
        if not damaged or any(self._too_often(name) for name in damaged):
            self._fail(node_id, error, "")
            return
        self.show.say(f"{damaged[0]:<18} damaged: {error.message}; set aside and built anew")
        gone = set(damaged)
        for name, node in self._nodes.items():
            if gone & set(node.parents):
                gone.add(name)
        for name in gone:
            # Tasks of these nodes still in flight count as workers in use until they end; their
            # outcome is not used.
            self._plans.pop(name, None)
            self._jobs.pop(name, None)

    def _too_often(self, what: str) -> bool:
        self._repairs[what] = self._repairs.get(what, 0) + 1
        return self._repairs[what] > RETRIES

    def _fail(self, node_id: str, error: BaseException, trace: str, shard: str = "") -> None:
        if not isinstance(error, StockpotError):
            where = node_id if shard in ("", FINISH) else f"{node_id}, shard {shard}"
            text = " ".join(str(error).split())
            error = RunError(f"{where}: {type(error).__name__}: {text}", trace=trace)
        # The first error is raised when all is done; what it says is not said twice.
        said = {str(failed) for failed in self._failed.values()}
        text = str(error) if self._failed and str(error) not in said else ""
        self._failed[node_id] = error
        if node_id in self._jobs:
            del self._jobs[node_id]
            self.show.stop(node_id, None, text)
        elif text:
            self.show.say(f"{node_id:<18} failed  {text}")

    def _first_failure(self) -> BaseException:
        node, error = next(iter(self._failed.items()))
        others = [name for name in self._failed if name != node]
        if others and isinstance(error, StockpotError):
            error.message = f"{error.message}; also failed: {', '.join(others)}"
        return error

    def _tell(self) -> None:
        for node_id, job in self._jobs.items():
            progress = self.store.work_in_progress(str(job.planned.key))["progress"]
            running = {
                name: Fraction(int(p["done"]), int(p["total"]), str(p.get("text", "")))
                for name, p in progress.items()
                if name in job.flying
            }
            self.show.update(node_id, max(0, len(job.finished) - job.before), running)

    def _count(self) -> None:
        """Say how many artifacts are built of those that this run builds; cached ones are in
        neither.
        """
        waiting = len(self._nodes) - len(self._plans)
        self.show.expect(len(self.built), len(self.built) + waiting)
