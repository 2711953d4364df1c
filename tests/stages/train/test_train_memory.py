"""A training's memory, measured in a process of its own, is below what the plan says; on a record
that dominates it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, sys
from pathlib import Path
from stockpot.store.usage import Usage
from stockpot.stages.train import STAGE
from tests.stages.train.test_train_memory import pack_and_params
root, model = Path(sys.argv[1]), sys.argv[2]
data, params = pack_and_params(root, model)
facts = {"train": data.facts, "valid": data.facts}
with Usage() as usage:
    from tests.memory import MemoryReader, MemoryWriter
    shard, writer = STAGE.shards(params, {})[0], MemoryWriter(root / "out")
    STAGE.run(params, {"train": data, "valid": data}, shard, writer)
print(json.dumps({"measured": usage.peak_bytes, "projected": STAGE.cost(params, facts).peak}))
"""
FACTORY = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import GraphSAGE

def build(c):
    sizes = c["num_features"], c["hidden"], c["layers"], c["num_classes"]
    return GraphSAGE(*sizes, dropout=c["dropout"])
"""


def pack_and_params(root, model):
    """A packed split that is in `root`, read by the pipeline's loader, and parameters of a short
    training."""
    from stockpot.stages.train.factory import source_digest
    from stockpot.stages.train.train_params import Params
    from tests.memory import MemoryReader

    facts = json.loads((root / "facts.json").read_text())
    params = Params(
        model=model,
        per_step=1,
        layers=3,
        hidden=256,
        dropout=0.5,
        lr=0.01,
        weight_decay=0.0,
        schedule="constant",
        epochs=2,
        patience=9,
        seed=0,
        index=0,
        device="cpu",
        normalization="sym",
        mass="none",
        self_loops=True,
        heads=4 if model == "gat" or ":" in model else 0,
        source_digest=source_digest(model) if ":" in model else "",
    )
    if model == "tail":
        params = replace(params, model="sage", hidden=1024, epochs=8, tail=8, tail_every=1)
    return MemoryReader(facts=facts, root=root / "pack"), params


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    from tests.packs import packed

    folder = tmp_path_factory.mktemp("memory")
    reader, _ = packed(
        folder,
        nodes=9000,
        degree=60,
        features=64,
        records={"outputs": 900, "records": 3, "aux": 5500},
        codec="fp32",
    )
    (folder / "facts.json").write_text(json.dumps(dict(reader.facts)))
    (folder / "my_nets.py").write_text(FACTORY)
    return folder


@pytest.mark.parametrize("model", ["gat", "gin", "my_nets:build", "tail"])
def test_measured_memory_is_below_the_projection(root, model):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(root), model],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["measured"] <= found["projected"] <= 5 * found["measured"], found
