"""Tasks: idempotent, picklable, refusing what they were not planned for, and never wrong about
whose result stands."""

import itertools
import multiprocessing
import pickle
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

from stockpot.errors import (
    BadInput,
    Conflict,
    Corrupt,
    CorruptArtifact,
    NonDeterminism,
    StockpotError,
)
from stockpot.execution.task import FINISH, Task, build_params, execute
from stockpot.store.commit import remove_work
from stockpot.store.digests import file_digest
from stockpot.store.store import Store
from tests.pipeline.store import toy
from tests.pipeline.store.toy import (
    COUNT,
    DOUBLE,
    build,
    install,
    make,
    manifest,
    numbers_of,
    payload_bytes,
    plan,
    source_of,
)
from tests.runs import quarantines


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    install(monkeypatch)


def test_builds_and_chains(tmp_path):
    key, results = build(tmp_path)
    reader = Store(tmp_path).open("count", key)
    assert np.array_equal(reader.array("total"), np.arange(12) * 2)
    assert reader.array("empty").shape == (0, 3)
    assert reader.facts == {"count": 12, "names": ["a", "b"]}
    assert results[-1].digest == reader.digest == reader.manifest["digest"]
    assert not any(name.startswith("part-") for name in reader.names())
    assert not (tmp_path / "work" / key).exists()
    double, _ = build(tmp_path, DOUBLE, inputs=numbers_of(key))
    assert np.array_equal(Store(tmp_path).open("double", double).array("values"), np.arange(12) * 4)
    parents = manifest(tmp_path, "double", double)["parents"]
    assert parents == [{"role": "numbers", "stage": "count", "key": key, "digest": reader.digest}]


def test_manifest_says_what_happened(tmp_path):
    key, _ = build(tmp_path)
    found = manifest(tmp_path, "count", key)
    assert found["format"] == 1
    assert found["params"] == {"n": 12, "shards": 2, "names": ["a", "b"]}
    assert found["facts"] == {"count": 12, "names": ["a", "b"]}
    assert set(found["shards"]) == {"shard-0", "shard-1", FINISH}
    assert found["notes"] == {"shard-0": {"whim": 0.5}, "shard-1": {"whim": 0.5}}
    assert found["seconds"] > 0
    assert found["bytes_written"] >= sum(file["size"] for file in found["files"].values())
    assert found["threads"] == 1
    assert found["device"] == "cpu"
    assert found["host"]
    assert "numpy" in found["software"]
    assert found["started"] > 0
    assert found["peak_bytes"] >= 0


def test_again_and_after_commit(tmp_path):
    tasks = plan(tmp_path)
    first = execute(tasks[0])
    again = execute(tasks[0])
    assert again.reused
    assert again.digest == first.digest
    execute(tasks[1])
    committed = execute(tasks[2])
    before = payload_bytes(tmp_path)
    for task in tasks:
        result = execute(task)
        assert result.reused
        assert result.digest == committed.digest
    assert payload_bytes(tmp_path) == before
    assert not (tmp_path / "work" / tasks[0].key).exists()


def test_all_missing_shards_are_named(tmp_path):
    params = toy.CountParams(n=12, shards=4)
    tasks = plan(tmp_path, params=params)
    execute(tasks[2])
    with pytest.raises(
        StockpotError, match=r"3 of 4 shards are missing: shard-0, shard-1, shard-3"
    ):
        execute(tasks[-1])
    assert not Store(tmp_path).committed("count", tasks[0].key)


def test_tasks_are_plain_data(tmp_path):
    for task in plan(tmp_path):
        assert pickle.loads(pickle.dumps(task)) == task


def test_params_come_back_typed():
    @dataclass(frozen=True)
    class Plain:
        a: int
        b: float

    assert build_params(Plain, {"a": 1, "b": 2.0}) == Plain(1, 2.0)
    assert build_params(toy.CountParams, {"n": 1, "shards": 1, "names": ["x"]}) == toy.CountParams(
        1, 1, ("x",)
    )
    with pytest.raises(Conflict, match="expected fields a, b, found a"):
        build_params(Plain, {"a": 1})


def test_another_version_of_the_stage_is_refused(tmp_path, monkeypatch):
    tasks = plan(tmp_path)
    install(monkeypatch, replace(COUNT, version=2))
    with pytest.raises(Conflict, match="version 2"):
        execute(tasks[0])
    with pytest.raises(Conflict, match="no stage 'nonsense'"):
        execute(replace(tasks[0], stage_name="nonsense"))


def test_exact_stage_that_differs_is_named(tmp_path, monkeypatch):
    turn = itertools.count()

    def run(_params, _inputs, _shard, writer):
        writer.array("x", np.array([next(turn)], np.int64))
        return {}

    stage = make("count", toy.CountParams, (), toy.count_shards, run, lambda *_: {})
    install(monkeypatch, stage)
    task = plan(tmp_path, stage)[0]
    store = Store(tmp_path)
    first = execute(task)
    # The race: this attempt does not see that the first one published.
    with monkeypatch.context() as blind:
        blind.setattr("stockpot.execution.task._sound", lambda *_: None)
        with pytest.raises(NonDeterminism, match=r"shard shard-0 .* file x/c/0"):
            execute(task)
        assert store.published(task.key, "shard-0").digest == first.digest
        recorded = execute(replace(task, exact=False))
    assert recorded.digest == first.digest
    assert store.published(task.key, "shard-0").array("x")[0] == 0


@pytest.mark.parametrize("exact", [True, False])
def test_a_commit_of_other_bytes_is_refused_where_the_stage_is_exact(tmp_path, monkeypatch, exact):
    """Two drivers that do not see each other's work: the one that commits last has other bytes."""
    turn = itertools.count()

    def run(_params, _inputs, shard, writer):
        writer.array(f"x-{shard.name}", np.array([next(turn)], np.int64))
        return {}

    stage = make("count", toy.CountParams, (), toy.count_shards, run, lambda *_: {}, exact=exact)
    install(monkeypatch, stage)
    tasks, store = plan(tmp_path, stage), Store(tmp_path)
    first = [execute(task) for task in tasks][-1]
    remove_work(store.work(tasks[0].key))
    monkeypatch.setattr(Store, "committed", lambda *_: False)
    for task in tasks[:-1]:
        execute(task)
    if exact:
        with pytest.raises(NonDeterminism, match="has other bytes than the committed artifact"):
            execute(tasks[-1])
    else:
        assert execute(tasks[-1]).digest == first.digest  # the first one counts
    assert store.open("count", tasks[0].key).array("x-shard-0")[0] == 0


def test_facts_count_as_bytes(tmp_path, monkeypatch):
    turn = itertools.count()
    stage = make(
        "count", toy.CountParams, (), toy.count_shards, lambda *_: {"n": next(turn)}, lambda *_: {}
    )
    install(monkeypatch, stage)
    monkeypatch.setattr("stockpot.execution.task._sound", lambda *_: None)
    task = plan(tmp_path, stage)[0]
    execute(task)
    with pytest.raises(NonDeterminism, match="facts n"):
        execute(task)


def run_all(tasks, results):
    for task in tasks:
        try:
            results.append(execute(task).digest)
        except StockpotError as error:
            # Only a finish that came before the other drivers published may say so.
            results.append(error)


def test_concurrent_threads_one_winner(tmp_path):
    tasks = plan(tmp_path)
    results = [[] for _ in range(6)]
    threads = [threading.Thread(target=run_all, args=(tasks, out)) for out in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digest = Store(tmp_path).open("count", tasks[0].key).digest
    assert [out[-1] for out in results] == [digest] * 6
    calm = tmp_path / "calm"
    build(calm)
    assert payload_bytes(calm) == payload_bytes(tmp_path)


def _process(tasks, queue):
    results = []
    run_all(tasks, results)
    queue.put(results[-1])


def test_concurrent_processes_one_winner(tmp_path):
    tasks = plan(tmp_path)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_process, args=(tasks, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [Store(tmp_path).open("count", tasks[0].key).digest] * 4


def test_committed_under_a_running_attempt(tmp_path, monkeypatch):
    def run(params, inputs, shard, writer):
        if slow:
            slow.clear()
            build(tmp_path)
        return toy.count_run(params, inputs, shard, writer)

    slow = [True]
    install(monkeypatch, replace(COUNT, run=run))
    task = plan(tmp_path)[0]
    result = execute(task)
    assert result.reused
    assert result.digest == Store(tmp_path).open("count", task.key).digest
    assert not (tmp_path / "work" / task.key).exists()


def test_source_that_moves_is_refused(tmp_path, monkeypatch):
    source = tmp_path / "graph.npz"
    source.write_bytes(b"one")
    inputs = source_of(source, file_digest(source))
    install(monkeypatch, replace(COUNT, roles=("source",)))
    key, _ = build(tmp_path / "store", inputs=inputs)
    assert manifest(tmp_path / "store", "count", key)["parents"][0]["stage"] == "source"

    def run(params, inputs, shard, writer):
        facts = toy.count_run(params, inputs, shard, writer)
        source.write_bytes(b"two")
        return facts

    install(monkeypatch, replace(COUNT, run=run))
    task = plan(tmp_path / "other", inputs=inputs)[0]
    with pytest.raises(BadInput, match=r"graph.npz: it changed since the plan was made"):
        execute(task)
    assert Store(tmp_path / "other").work_in_progress(task.key)["shards"] == []
    with pytest.raises(BadInput, match="it changed since"):
        execute(task)


def test_damaged_input_is_set_aside_and_rebuilt(tmp_path):
    key, _ = build(tmp_path)
    store = Store(tmp_path)
    before = payload_bytes(tmp_path)
    inputs = numbers_of(key)
    tasks = plan(tmp_path, DOUBLE, inputs=inputs)
    toy.damage(store.folder("count", key) / "total/c/0", "flip")
    with pytest.raises(CorruptArtifact, match=r"total/c/0.*crc32c"):
        execute(tasks[0])
    assert not store.committed("count", key)
    (aside,) = quarantines(store)
    assert "crc32c" in (aside / "reason.txt").read_text()
    build(tmp_path)
    assert payload_bytes(tmp_path) == before
    for task in tasks:
        execute(task)


def test_damage_that_a_stage_finds_itself(tmp_path, monkeypatch):
    def run(_params, inputs, _shard, _writer):
        raise Corrupt("record 3 does not match its crc32c")

    key, _ = build(tmp_path)
    store = Store(tmp_path)
    install(monkeypatch, COUNT, replace(DOUBLE, run=run))
    task = plan(tmp_path, DOUBLE, inputs=numbers_of(key))[0]
    toy.damage(store.folder("count", key) / "lines/shard-0.txt", "flip")
    with pytest.raises(Corrupt, match="record 3"):
        execute(task)
    assert not store.committed("count", key)


def test_damaged_shard_is_computed_anew(tmp_path):
    tasks = plan(tmp_path)
    store = Store(tmp_path)
    for task in tasks[:2]:
        execute(task)
    part = store.published(tasks[0].key, "shard-1").root / "part-shard-1/c/0"
    toy.damage(part, "flip")
    with pytest.raises(Corrupt, match="shard shard-1"):
        execute(tasks[2])
    assert store.work_in_progress(tasks[0].key)["shards"] == ["shard-0"]
    for how in ("remove", "truncate"):
        execute(tasks[1])
        toy.damage(store.published(tasks[0].key, "shard-1").root / "part-shard-1/c/0", how)
    entry = store.work(tasks[0].key).entry_path("shard-1")
    assert not execute(tasks[1]).reused
    toy.damage(entry, "flip last")
    for task in tasks:
        execute(task)
    build(tmp_path / "calm")
    assert payload_bytes(tmp_path) == payload_bytes(tmp_path / "calm")


def test_shard_rebuilt_after_finish_is_finished_again(tmp_path, monkeypatch):
    tasks = plan(tmp_path)
    store = Store(tmp_path)
    for task in tasks[:2]:
        execute(task)

    with monkeypatch.context() as dying:
        dying.setattr("stockpot.execution.task.commit", die)
        with pytest.raises(KeyboardInterrupt):
            execute(tasks[2])
    assert store.work_in_progress(tasks[0].key)["shards"] == [FINISH, "shard-0", "shard-1"]
    store.retract(tasks[0].key, "shard-0", "a test")
    assert store.work_in_progress(tasks[0].key)["shards"] == ["shard-1"]
    for task in tasks:
        execute(task)
    assert store.committed("count", tasks[0].key)


def test_a_finish_of_shards_that_changed_is_done_again(tmp_path, monkeypatch):
    """A recorded stage whose shard was rebuilt with other values beside a finish that read the old
    ones."""
    turn = {"add": 0}

    def run(params, inputs, shard, writer):
        values = np.arange(shard.start, shard.stop, dtype=np.int32) + turn["add"]
        writer.array(f"part-{shard.name}", values)
        return {"count": len(values)}

    stage = replace(COUNT, run=run, exact=False)
    install(monkeypatch, stage)
    tasks = plan(tmp_path, stage)
    work = Store(tmp_path).work(tasks[0].key)
    for task in tasks[:2]:
        execute(task)
    with monkeypatch.context() as dying:
        dying.setattr("stockpot.execution.task.commit", die)
        with pytest.raises(KeyboardInterrupt):
            execute(tasks[2])
    finished = work.entry(FINISH)["digest"]
    work.entry_path(
        "shard-0"
    ).unlink()  # as by a driver that set it aside before this finish was published
    (work.claims / "shards/claim-shard-0.json").unlink(missing_ok=True)
    turn["add"] = 100
    execute(tasks[0])
    assert work.entry(FINISH)["digest"] == finished
    execute(tasks[2])
    found = Store(tmp_path).open(stage.name, tasks[0].key)
    assert found.array("total").tolist() == [*range(100, 106), *range(6, 12)]


def die(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_a_file_that_no_shard_wrote_is_in_no_artifact(tmp_path):
    """Left by a commit that never ended: whatever it is, no manifest names it."""
    tasks = plan(tmp_path)
    folder = Store(tmp_path).folder("count", tasks[0].key)
    (folder / "lines").mkdir(parents=True)
    (folder / "lines/shard-7.txt").write_text("of another commit")
    for task in tasks:
        execute(task)
    found = Store(tmp_path).open("count", tasks[0].key)
    present = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    assert present == sorted([*found.names(), "manifest.json"])
    assert list(Store(tmp_path).quarantined.rglob("shard-7.txt"))


def test_files_must_differ_between_shards(tmp_path, monkeypatch):
    def run(_params, _inputs, _shard, writer):
        writer.path("same.txt").write_text("x")
        return {}

    install(monkeypatch, replace(COUNT, run=run, finish=lambda *_: {}))
    with pytest.raises(Conflict, match=r"shards shard-0 and shard-1 .* both wrote 'same.txt'"):
        build(tmp_path)


def test_an_array_made_on_disk_is_published_as_any_other(tmp_path):
    from stockpot.store.attempt import Attempt

    work = Store(tmp_path).work("0" * 32)
    values = np.arange(5000, dtype=np.int64).reshape(-1, 2)
    written, made = Attempt(work, "a"), Attempt(work, "b")
    written.array("x", values)
    made.create("x", values.shape, np.int64)[::-1] = values[::-1]
    entries = [attempt.publish({}, stage="toy", exact=True) for attempt in (written, made)]
    assert entries[0]["files"] == entries[1]["files"]
    assert np.array_equal(Store(tmp_path).published("0" * 32, "b").array("x"), values)
    with pytest.raises(Conflict, match="written twice"):
        made.create("x", (1,), np.int64)


@pytest.mark.parametrize(
    "name",
    [
        "/abs",
        "../up",
        "a/../b",
        "",
        "manifest.json",
        "facts.json",
        ".hidden",
        "a//b",
        "x/zarr.json",
    ],
)
def test_payload_names_are_checked(tmp_path, name):
    from stockpot.store.attempt import Attempt

    attempt = Attempt(Store(tmp_path).work("0" * 32), "s")
    with pytest.raises(Conflict, match="payload"):
        attempt.path(name)
    attempt.array("x", np.zeros(1))
    with pytest.raises(Conflict, match="written twice"):
        attempt.path("x")


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": object()}, {"x": np.zeros(2)}])
def test_facts_must_be_json(tmp_path, monkeypatch, facts):
    install(monkeypatch, replace(COUNT, run=lambda *_: facts))
    with pytest.raises((TypeError, ValueError), match=r"facts\.x"):
        execute(plan(tmp_path)[0])
    assert not list((tmp_path / "work").glob("*/attempt-*"))


def test_scratch_survives_a_failed_attempt(tmp_path, monkeypatch):
    seen = []

    def run(params, inputs, shard, writer):
        checkpoint = writer.scratch() / "checkpoint"
        seen.append(checkpoint.exists())
        checkpoint.write_text("epoch 3")
        if len(seen) == 1:
            raise RuntimeError("killed")
        return toy.count_run(params, inputs, shard, writer)

    install(monkeypatch, replace(COUNT, run=run))
    tasks = plan(tmp_path)
    with pytest.raises(RuntimeError):
        execute(tasks[0])
    execute(tasks[0])
    assert seen == [False, True]


def test_progress_is_seen(tmp_path, monkeypatch):
    seen = []

    def run(params, inputs, shard, writer):
        writer.progress(3, 10, "walking")
        seen.append(Store(tmp_path).work_in_progress(task.key)["progress"]["shard-0"])
        return toy.count_run(params, inputs, shard, writer)

    install(monkeypatch, replace(COUNT, run=run))
    task: Task = plan(tmp_path)[0]
    execute(task)
    assert (seen[0]["done"], seen[0]["total"], seen[0]["text"]) == (3, 10, "walking")


def test_dead_attempts_are_cleared(tmp_path):
    task = plan(tmp_path)[0]
    context = multiprocessing.get_context("fork")

    def leave():
        from stockpot.store.attempt import Attempt

        Attempt(Store(tmp_path).work(task.key), "shard-0")
        Attempt(Store(tmp_path).work(task.key), "shard-1")

    process = context.Process(target=leave)
    process.start()
    process.join()
    assert len(list((tmp_path / "work" / task.key).glob("attempt-*"))) == 2
    execute(task)
    left = list((tmp_path / "work" / task.key).glob("attempt-*/owner.json"))
    assert len(left) == 2  # the one published, and the other shard's, which its own task clears
