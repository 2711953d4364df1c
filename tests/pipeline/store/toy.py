"""Two tiny stages and a driver of one line each, so that store and tasks are tested without the
real pipeline."""

import json
import sys
import types
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stockpot.execution.task import FINISH, Task, execute, open_inputs
from stockpot.stages.ingest.source import single_file
from stockpot.stages.stage import Cost, Shard, Stage
from stockpot.store.inputs import ArtifactInput, SourceInput
from stockpot.store.keys import artifact_key
from stockpot.store.store import Store

__all__ = ["COUNT", "DOUBLE", "build", "damage", "install", "payload_bytes", "plan"]


@dataclass(frozen=True)
class CountParams:
    n: int = 12
    shards: int = 2
    names: tuple[str, ...] = ("a", "b")


def count_shards(params, _inputs):
    step = params.n // params.shards
    return [Shard(f"shard-{i}", i * step, (i + 1) * step) for i in range(params.shards)]


def count_run(params, inputs, shard, writer):
    seed = len(inputs["source"].path("source").read_bytes()) if "source" in inputs else 0
    values = np.arange(shard.start, shard.stop, dtype=np.int32) + seed
    writer.progress(0, 1, "counting")
    writer.array(f"values-{shard.name}", values)
    writer.array(f"part-{shard.name}", values * 2)
    writer.path(f"lines/{shard.name}.txt").write_text("\n".join(map(str, values)))
    writer.note("whim", 0.5)
    writer.progress(1, 1, "counting")
    return {"count": len(values), "sum": values.sum()}


def count_finish(params, _inputs, outputs, writer):
    writer.array("total", np.concatenate([outputs[name].array(f"part-{name}") for name in outputs]))
    writer.array("empty", np.zeros((0, 3), np.float32))
    return {
        "count": sum(reader.facts["count"] for reader in outputs.values()),
        "names": params.names,
    }


def double_run(_params, inputs, _shard, writer):
    writer.array("values", inputs["numbers"].array("total") * 2)
    return {}


def double_finish(_params, inputs, _outputs, _writer):
    return {"of": inputs["numbers"].facts["count"]}


def make(name, params, roles, shards, run, finish, exact=True, version=1):
    return Stage(
        name=name,
        version=version,
        exact=exact,
        params=params,
        roles=roles,
        reads=(),
        resolve=lambda _values, _facts: params(),
        shards=shards,
        run=run,
        finish=finish,
        cost=lambda _params, _facts: Cost(0, 0, 0),
    )


COUNT = make("count", CountParams, (), count_shards, count_run, count_finish)
DOUBLE = make(
    "double", CountParams, ("numbers",), lambda _p, _i: [Shard("all")], double_run, double_finish
)


def install(monkeypatch, *stages):
    """Make these the stages every task finds."""
    registry = types.ModuleType("stockpot.planning.registry")
    registry.STAGES = {stage.name: stage for stage in stages or (COUNT, DOUBLE)}
    monkeypatch.setitem(sys.modules, "stockpot.planning.registry", registry)


def plan(root, stage=COUNT, params=None, inputs=None, threads=1):
    """Tasks of one artifact: its shards, then its finish."""
    store = Store(root)
    params = params or stage.params()
    inputs = inputs or {}
    readers = open_inputs(store, inputs)
    key = artifact_key(
        stage.name,
        stage.version,
        params,
        [(role, reader.digest) for role, reader in readers.items()],
    )
    shards = stage.shards(params, readers)
    names = tuple(shard.name for shard in shards)
    return [
        Task(
            str(root),
            stage.name,
            stage.name,
            key,
            asdict(params),
            inputs,
            shard,
            names,
            stage.exact,
            threads,
        )
        for shard in [*shards, Shard(FINISH)]
    ]


def build(root, stage=COUNT, params=None, inputs=None):
    """Run all tasks of one artifact; (key, results)."""
    tasks = plan(root, stage, params, inputs)
    return tasks[0].key, [execute(task) for task in tasks]


def payload_bytes(root):
    """Relative path -> bytes of every payload file of every artifact: all but the manifests."""
    objects = Store(root).root / "objects"
    return {
        path.relative_to(objects).as_posix(): path.read_bytes()
        for path in sorted(objects.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def damage(path, how):
    """Damage one file in a named way."""
    data = path.read_bytes()
    if how == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif how == "flip last":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 0x80]))
    elif how == "truncate":
        path.write_bytes(data[:-1])
    elif how == "zero":
        path.write_bytes(bytes(len(data)))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "remove":
        path.unlink()
    else:
        raise AssertionError(how)


def manifest(root, stage, key):
    return json.loads((Store(root).folder(stage, key) / "manifest.json").read_bytes())


def numbers_of(key):
    return {"numbers": ArtifactInput("count", key)}


def source_of(path, digest):
    return {"source": SourceInput(single_file(str(path), Path(path)), digest)}
