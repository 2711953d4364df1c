"""A task can run anywhere, twice, at once or after the fact: the store ends with the same one
artifact.

API: `Task` (picklable), `execute(task) -> ShardResult`, `FINISH`. The task of shard `FINISH` runs
the stage's `finish` and commits. Stages are looked up in `stockpot.planning.registry.STAGES` by
name.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stockpot.errors import (
    BadInput,
    Conflict,
    Corrupt,
    CorruptArtifact,
    CorruptShard,
    NonDeterminism,
)
from stockpot.execution.interrupt import Unwanted
from stockpot.stages.stage import OFF
from stockpot.store import fs
from stockpot.store.attempt import FINISH, UNLIMITED_BYTES, Attempt, Work, clear_dead_attempts
from stockpot.store.commit import commit, entries_of, remove_work
from stockpot.store.inputs import ArtifactInput, SourceInput
from stockpot.store.keys import artifact_key, plain
from stockpot.store.reader import ShardReader, SourceReader
from stockpot.store.store import Store
from stockpot.store.usage import Usage

if typing.TYPE_CHECKING:
    from stockpot.stages.stage import Reader, Shard, Stage

__all__ = [
    "FINISH",
    "ShardResult",
    "Task",
    "build_params",
    "execute",
    "limit_threads",
    "open_inputs",
]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FINISH_ATTEMPTS = 3


@dataclass(frozen=True)
class Task:
    """One shard of one artifact, or its finish and commit; plain data, so that any process can run
    it.

    Attributes
    ----------
    store_root : folder of the store, as the worker sees it.
    node_id : node of the DAG ("pack:train"), for messages.
    stage_name, key : the artifact.
    params : resolved parameters as a dict (`keys.plain`).
    inputs : role -> input.
    shard : the shard to compute; `Shard(FINISH)` finishes and commits.
    shards : names of all shards of the artifact, in order.
    exact : the same inputs give the same bytes.
    threads : threads this task may use.
    memory_bytes : memory it may take above its worker; the stage stays below where it can
        (`Cost.least`).
    device : where it computes, for the manifest.
    """

    store_root: str
    node_id: str
    stage_name: str
    key: str
    params: Mapping[str, Any]
    inputs: Mapping[str, ArtifactInput | SourceInput]
    shard: Shard
    shards: tuple[str, ...]
    exact: bool
    threads: int = 1
    memory_bytes: int = UNLIMITED_BYTES
    device: str = "cpu"


@dataclass(frozen=True)
class ShardResult:
    """What a driver needs to know of a task.

    Attributes
    ----------
    digest : of the shard, or for `FINISH` of the committed artifact.
    seconds, peak_bytes : of the attempt that counts; 0 where the artifact was committed before.
    facts : of the shard or artifact.
    reused : nothing was computed: it was committed or published before.
    """

    key: str
    shard: str
    digest: str
    seconds: float
    peak_bytes: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    reused: bool = False


def execute(task: Task) -> ShardResult:
    """Run a task, or find that its result is there.

    Damage found in an input or shard is set aside before the error is raised, so that the next run
    builds it anew.

    Raises
    ------
    BadInput
        The disk is full or read-only, a source changed, or the stage refuses its input.
    Corrupt
        An input or a published shard is damaged.
    NonDeterminism
        Another attempt at this exact shard gave other bytes.
    Conflict
        This process has another version of the stage than the one that planned the task.
    StockpotError
        `FINISH` came before all shards were published; it names the missing ones.
    """
    store = Store(task.store_root)
    work = store.work(task.key)
    if (done := _committed(store, task)) is not None:
        remove_work(work)
        return done
    inputs: dict[str, Reader] = {}
    try:
        with fs.disk_errors(store.root):
            result = _run(store, work, task, inputs)
    except (BadInput, Conflict, NonDeterminism):
        raise
    except Exception as error:
        if isinstance(error, Corrupt) and not isinstance(error, CorruptShard):
            _set_aside(store, inputs, error)
            raise
        # Another driver may have committed the artifact and removed the work under this attempt.
        if (done := _committed(store, task)) is None:
            if isinstance(error, Corrupt):
                _set_aside(store, inputs, error)
            raise
        result = done
    if store.committed(task.stage_name, task.key):
        remove_work(work)
    return result


def open_inputs(
    store: Store, inputs: Mapping[str, ArtifactInput | SourceInput]
) -> dict[str, Reader]:
    """Reader of each input by role.

    Raises
    ------
    Corrupt, BadInput
        As `Store.open`.
    """
    return {
        role: SourceReader(item.source, item.digest)
        if isinstance(item, SourceInput)
        else store.open(item.stage, item.key)
        for role, item in inputs.items()
    }


def _committed(store: Store, task: Task) -> ShardResult | None:
    if not store.committed(task.stage_name, task.key):
        return None
    try:
        reader = store.open(task.stage_name, task.key)
        facts = reader.facts
    except CorruptArtifact as error:
        store.quarantine(error.stage, error.key, str(error))
        return None
    return ShardResult(task.key, task.shard.name, reader.digest, 0.0, 0, facts, reused=True)


def _run(store: Store, work: Work, task: Task, inputs: dict[str, Reader]) -> ShardResult:
    stage = _stage(task.stage_name)
    for item in task.inputs.values():
        if isinstance(item, ArtifactInput):
            store.await_committed(item.stage, item.key)
    inputs.update(open_inputs(store, task.inputs))
    _check_key(task, stage, inputs)
    params = build_params(stage.params, task.params)
    limit_threads(task.threads)
    if task.shard.name == FINISH:
        return _finish(store, work, task, stage, params, inputs)
    if (found := _sound(store, task)) is not None:
        return _result(task, found, reused=True)
    entry = _attempt(
        work, task, stage, inputs, lambda writer: stage.run(params, inputs, task.shard, writer)
    )
    return _result(task, entry)


def _finish(
    store: Store,
    work: Work,
    task: Task,
    stage: Stage[Any],
    params: Any,
    inputs: Mapping[str, Reader],
) -> ShardResult:
    for turn in range(FINISH_ATTEMPTS):
        try:
            entry = _sound(store, task) or {}
            if not entry:
                entries = entries_of(work, task.shards, stage.name)
                outputs = {
                    name: _shard_reader(work, name, entry) for name, entry in entries.items()
                }
                entry = _attempt(
                    work,
                    task,
                    stage,
                    inputs,
                    partial(stage.finish, params, inputs, outputs),
                    uses={name: found["digest"] for name, found in entries.items()},
                )
            commit(
                work,
                store.folder(stage.name, task.key),
                quarantine=store.quarantined,
                shards=task.shards,
                stage=stage.name,
                exact=task.exact,
                version=stage.version,
                params=plain(params),
                parents=_parents(task, inputs),
            )
            break
        except CorruptShard as error:
            # A finish of other shards than now stand is simply done again; damaged shards need
            # their own tasks.
            if error.shard != FINISH or turn == FINISH_ATTEMPTS - 1:
                raise
            store.retract(task.key, FINISH, str(error))
    reader = store.open(stage.name, task.key)
    return ShardResult(
        task.key, FINISH, reader.digest, entry["seconds"], entry["peak_bytes"], reader.facts
    )


def _attempt(
    work: Work,
    task: Task,
    stage: Stage[Any],
    inputs: Mapping[str, Reader],
    compute: Callable[[Attempt], dict[str, Any]],
    uses: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Compute and publish one shard; the entry that stands."""
    clear_dead_attempts(work, task.shard.name)
    attempt = Attempt(work, task.shard.name, threads=task.threads, memory_bytes=task.memory_bytes)
    try:
        with Usage() as usage:
            facts = compute(attempt)
        for reader in inputs.values():
            # A source edited while the stage read it would falsify the key.
            if isinstance(reader, SourceReader):
                reader.check()
        return attempt.publish(
            facts, stage=stage.name, exact=task.exact, usage=usage, device=task.device, uses=uses
        )
    except NonDeterminism:
        raise  # The attempt that differs is evidence and stays.
    except (Exception, Unwanted):  # a process that lives on: nobody would take its attempt for dead
        attempt.drop()
        raise


def _sound(store: Store, task: Task) -> dict[str, Any] | None:
    """Entry of this task's shard where it is published with all its files; a damaged one is set
    aside.
    """
    try:
        reader = store.published(task.key, task.shard.name)
    except CorruptShard as error:
        if store.committed(task.stage_name, task.key):
            raise
        store.retract(task.key, task.shard.name, str(error))
        return None
    return None if reader is None else store.work(task.key).entry(task.shard.name)


def _shard_reader(work: Work, name: str, entry: Mapping[str, Any]) -> ShardReader:
    reader = ShardReader(work.payload(entry), entry, key=work.key, shard=name)
    reader.check_sizes()
    return reader


def _result(task: Task, entry: Mapping[str, Any], *, reused: bool = False) -> ShardResult:
    return ShardResult(
        task.key,
        task.shard.name,
        entry["digest"],
        entry["seconds"],
        entry["peak_bytes"],
        entry["facts"],
        reused=reused,
    )


def _set_aside(store: Store, inputs: Mapping[str, Reader], error: Corrupt) -> None:
    """Set what is damaged aside; where the error does not say, find out by reading every input in
    full.
    """
    if isinstance(error, CorruptShard):
        store.retract(error.key, error.shard, str(error))
    elif isinstance(error, CorruptArtifact):
        store.quarantine(error.stage, error.key, str(error))
    else:
        from stockpot.store.verify import verify_artifact

        for reader in inputs.values():
            stage = getattr(reader, "stage", None)
            if stage is not None and verify_artifact(store, stage, reader.key):
                store.quarantine(stage, reader.key, str(error))


def _stage(name: str) -> Stage[Any]:
    stages: Mapping[str, Stage[Any]] = importlib.import_module("stockpot.planning.registry").STAGES
    if name not in stages:
        raise Conflict(
            f"this worker knows no stage {name!r}; it knows {', '.join(sorted(stages))}",
            fix=_SAME_VERSION,
        )
    return stages[name]


_SAME_VERSION = "install the same stockpot on every worker, restart the workers and run again"


def _check_key(task: Task, stage: Stage[Any], inputs: Mapping[str, Reader]) -> None:
    pairs = [(role, reader.digest) for role, reader in inputs.items()]
    found = artifact_key(stage.name, stage.version, task.params, pairs)
    if found != task.key:
        raise Conflict(
            f"{task.node_id}: planned as {task.key}, but this worker's stage {stage.name} version "
            f"{stage.version} and "
            f"the inputs in store {task.store_root} make it {found}",
            fix=_SAME_VERSION,
        )


def _parents(task: Task, inputs: Mapping[str, Reader]) -> list[dict[str, str]]:
    return [
        {
            "role": role,
            "stage": item.stage if isinstance(item, ArtifactInput) else "source",
            "key": inputs[role].key,
            "digest": inputs[role].digest,
        }
        for role, item in sorted(task.inputs.items())
    ]


def build_params(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Instance of a params dataclass from a dict, as `keys.plain` or JSON gives it.

    Raises
    ------
    Conflict
        A field is missing or unknown: another version of the stage made the dict.
    """
    names = {item.name for item in dataclasses.fields(cls)}
    needed = {item.name for item in dataclasses.fields(cls) if OFF not in item.metadata}
    if not needed <= values.keys() <= names:
        raise Conflict(
            f"{cls.__qualname__}: expected fields {', '.join(sorted(names))}, found "
            f"{', '.join(sorted(values))}",
            fix=_SAME_VERSION,
        )
    nested = any(isinstance(value, (dict, list)) for value in values.values())
    hints = typing.get_type_hints(cls) if nested else {}
    return cls(**{name: _typed(hints.get(name), value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return build_params(hint, value)
    if isinstance(value, (list, tuple)):
        args = [arg for arg in typing.get_args(hint) if arg is not Ellipsis]
        inner = args[0] if len(set(args)) == 1 else None
        items = [_typed(inner, item) for item in value]
        return items if typing.get_origin(hint) is list else tuple(items)
    return value


def limit_threads(threads: int) -> None:
    """Let the libraries of this process use `threads` threads, those loaded later included.

    numba's limit holds for the calling thread. Only torch is left alone where nothing has loaded
    it.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if importlib.util.find_spec("threadpoolctl") is not None:
        importlib.import_module("threadpoolctl").threadpool_limits(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    if "numba" in sys.modules or threads < (os.cpu_count() or 1):
        import numba

        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
