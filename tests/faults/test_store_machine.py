"""Random runs, crashes, races, damage and repairs against a model that knows only which artifacts
are committed."""

import contextlib
import errno
import os
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stockpot.errors import BadInput, Corrupt, CorruptArtifact, StockpotError
from stockpot.execution.task import execute
from stockpot.store import fs
from stockpot.store.store import Store
from stockpot.store.verify import verify_artifact
from tests.pipeline.store.toy import (
    COUNT,
    DOUBLE,
    CountParams,
    build,
    damage,
    numbers_of,
    payload_bytes,
    plan,
)

PARAMS = [CountParams(n=4, shards=1), CountParams(n=6, shards=2), CountParams(n=6, shards=3)]
registry = types.ModuleType("stockpot.planning.registry")
registry.STAGES = {stage.name: stage for stage in (COUNT, DOUBLE)}


class Crash(BaseException):
    pass


def crash_at(step):
    left = [step]

    def before(_name, _path):
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    return mock.patch.object(fs, "before", before)


def no_sync(_fd):
    """Crashes here lose no page cache; the power cuts of test_store_crash do."""


def no_links(_self, _target):
    raise OSError(errno.EOPNOTSUPP, "no links")


def payload_of(files, stage, key):
    return {name: data for name, data in files.items() if name.startswith(f"{stage}/{key}/")}


class StoreMachine(RuleBasedStateMachine):
    links = True

    @initialize()
    def start(self):
        self.patches = [
            mock.patch.dict(sys.modules, {"stockpot.planning.registry": registry}),
            mock.patch.object(os, "fsync", no_sync),
        ]
        if not self.links:
            self.patches.append(mock.patch.object(Path, "hardlink_to", no_links))
        for patch in self.patches:
            patch.start()
        self.folder = tempfile.TemporaryDirectory(
            dir="/dev/shm" if Path("/dev/shm").is_dir() else None
        )
        root = Path(self.folder.name)
        self.store = Store(root / "store")
        self.tasks = [plan(self.store.root, params=params) for params in PARAMS]
        for params in PARAMS:
            key, _ = build(root / "calm", params=params)
            build(root / "calm", DOUBLE, inputs=numbers_of(key))
        self.calm = payload_bytes(root / "calm")
        self.committed, self.damaged = set(), set()

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()
            for patch in self.patches:
                patch.stop()

    def run(self, task):
        artifact = (task.stage_name, task.key)
        result = error = None
        try:
            result = execute(task)
        except StockpotError as raised:
            error = raised
        if isinstance(error, CorruptArtifact):
            # A damaged input: set aside, to be built anew.
            assert (error.stage, error.key) in self.damaged
            self.lose(error.stage, error.key)
            return False
        if error is not None:
            assert "missing" in str(error)
            assert task.shard.name == "_finish"
            return False
        assert result.key == task.key
        if task.shard.name == "_finish":
            self.committed.add(artifact)
            if not result.reused:
                self.damaged.discard(artifact)
        return True

    def lose(self, stage, key):
        self.damaged.discard((stage, key))
        self.committed.discard((stage, key))

    def learn(self, artifact):
        """After a crash or race only the store knows whether the commit was reached."""
        if self.store.committed(*artifact):
            self.committed.add(artifact)
            if not verify_artifact(self.store, *artifact):
                self.damaged.discard(artifact)
        else:
            self.lose(*artifact)

    which = st.integers(0, len(PARAMS) - 1)

    @rule(which=which, shard=st.integers(0, 3))
    def task(self, which, shard):
        task = self.tasks[which][min(shard, len(self.tasks[which]) - 1)]
        self.run(task)
        self.learn((task.stage_name, task.key))

    @rule(which=which)
    def whole_artifact(self, which):
        for task in self.tasks[which]:
            self.run(task)
        assert (task.stage_name, task.key) in self.committed

    @rule(which=which, shard=st.integers(0, 3), step=st.integers(1, 90))
    def crash(self, which, shard, step):
        task = self.tasks[which][min(shard, len(self.tasks[which]) - 1)]
        with crash_at(step), contextlib.suppress(Crash):
            self.run(task)
        self.learn((task.stage_name, task.key))

    @rule(which=which, racers=st.integers(2, 3))
    def race(self, which, racers):
        errors = []

        def everything():
            for task in self.tasks[which]:
                try:
                    execute(task)
                except Exception:
                    errors.append(traceback.format_exc())

        threads = [threading.Thread(target=everything) for _ in range(racers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        task = self.tasks[which][-1]
        if (task.stage_name, task.key) not in self.damaged:
            assert errors == []
        self.learn((task.stage_name, task.key))
        self.whole_artifact(which)

    @precondition(lambda self: self.committed - self.damaged)
    @rule(
        data=st.data(),
        how=st.sampled_from(["flip", "flip last", "truncate", "zero", "empty", "remove"]),
    )
    def harm(self, data, how):
        stage, key = data.draw(st.sampled_from(sorted(self.committed - self.damaged)))
        files = sorted(
            p
            for p in self.store.folder(stage, key).rglob("*")
            if p.is_file() and p.name != "manifest.json"
        )
        victim = data.draw(st.sampled_from(files))
        # A new inode: work that a killed driver left may still hold a link to the old one.
        content = victim.read_bytes()
        victim.unlink()
        victim.write_bytes(content)
        damage(victim, how)
        if how == "remove" or victim.read_bytes() != content:
            self.damaged.add((stage, key))

    @precondition(lambda self: self.damaged)
    @rule(data=st.data())
    def quarantine(self, data):
        stage, key = data.draw(st.sampled_from(sorted(self.damaged)))
        assert verify_artifact(self.store, stage, key)
        assert self.store.quarantine(stage, key, "verify found damage") is not None
        self.lose(stage, key)

    @rule(which=which)
    def downstream(self, which):
        numbers = ("count", self.tasks[which][0].key)
        try:
            tasks = plan(self.store.root, DOUBLE, inputs=numbers_of(numbers[1]))
        except BadInput:
            assert numbers not in self.committed
            return
        except CorruptArtifact:
            assert numbers in self.damaged
            return
        for task in tasks:
            if not self.run(task):
                break
        self.learn(("double", tasks[0].key))

    @rule()
    def reopen_and_tidy(self):
        self.store = Store(self.store.root)
        done = self.store.clean_work()
        assert {key for _, key in self.committed} >= set(done)

    @invariant()
    def the_store_is_what_the_model_says(self):
        if not hasattr(self, "store"):
            return
        assert set(self.store.artifacts()) == self.committed
        for stage, key in self.committed:
            findings = verify_artifact(self.store, stage, key)
            assert bool(findings) == ((stage, key) in self.damaged), findings
        files = payload_bytes(self.store.root)
        for stage, key in self.committed - self.damaged:
            assert payload_of(files, stage, key) == payload_of(self.calm, stage, key)
            reader = self.store.open(stage, key)
            for name in {
                name.split("/", 1)[0] for name in reader.names() if name.endswith("/zarr.json")
            }:
                reader.array(name)
        for tasks in self.tasks:
            if ("count", tasks[0].key) not in self.committed:
                with pytest.raises(BadInput, match="no artifact"):
                    self.store.open("count", tasks[0].key)
        for stage, key in self.damaged:
            try:
                reader = self.store.open(stage, key)
                for name in reader.names():
                    reader.path(name)
            except Corrupt:
                continue
            raise AssertionError(f"damage to {stage}/{key} was read in silence")


class NoLinksMachine(StoreMachine):
    links = False


# Races make runs differ, so an example cannot be replayed and shrunk; the model holds for every
# interleaving.
few = settings(max_examples=12, stateful_step_count=12, phases=[Phase.generate])
TestStore = StoreMachine.TestCase
TestStore.settings = few
TestStoreWithoutLinks = NoLinksMachine.TestCase
TestStoreWithoutLinks.settings = few
