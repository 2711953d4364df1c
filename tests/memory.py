"""Readers and writers in memory, so that a stage is tested without the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class MemoryReader:
    def __init__(self, arrays=None, facts=None, root=None, key="0" * 32, digest="0" * 32):
        self.arrays = dict(arrays or {})
        self.facts = dict(facts or {})
        self.root = Path(root) if root is not None else None
        self.key, self.digest = key, digest
        self.parents = {}

    def parent(self, role):
        return self.parents[role]

    def has(self, name):
        return name in self.arrays or (self.root is not None and (self.root / name).exists())

    def array(self, name):
        values = self.arrays[name]
        values.flags.writeable = False
        return values

    def path(self, name):
        return self.root / name

    def names(self):
        return sorted(
            p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()
        )


class MemoryWriter:
    def __init__(self, root, threads=1, memory_bytes=1 << 40):
        self.memory_bytes = memory_bytes
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.arrays, self.notes, self.threads = {}, {}, threads
        self.claimed = set()

    def array(self, name, values):
        assert name not in self.arrays
        self.arrays[name] = np.array(values)

    def create(self, name, shape, dtype):
        assert name not in self.arrays
        self.arrays[name] = np.zeros(shape, dtype)
        return self.arrays[name]

    def path(self, name):
        assert name not in self.claimed, f"{name} is written twice"
        self.claimed.add(name)
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def scratch(self):
        target = self.root / ".scratch"
        target.mkdir(exist_ok=True, parents=True)
        return target

    def note(self, name, value):
        self.notes[name] = value

    def progress(self, done, total, text=""):
        pass


def run_stage(stage, params, inputs, root, *, threads=1, memory_bytes=1 << 40):
    """All shards, then finish; returns a reader of the artifact (arrays in memory, files under
    `root`)."""
    root = Path(root)
    outputs = {}
    for shard in stage.shards(params, inputs):
        writer = MemoryWriter(root, threads, memory_bytes)
        facts = stage.run(params, inputs, shard, writer)
        outputs[shard.name] = MemoryReader(writer.arrays, facts, root)
    writer = MemoryWriter(root, threads, memory_bytes)
    facts = stage.finish(params, inputs, outputs, writer)
    arrays = {
        n: a for o in outputs.values() for n, a in o.arrays.items() if not n.startswith("part-")
    }
    return MemoryReader({**arrays, **writer.arrays}, facts, root)
