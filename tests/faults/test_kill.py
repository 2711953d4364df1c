"""kill -9 of the driver at random moments: the same command completes, redoes little and ends with
the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from tests.graphs import write_recipe

pytestmark = pytest.mark.long
EXACT = ("ingest", "split", "sizing", "influence", "order", "quantize", "pack")


def command(recipe, store, runs):
    return [
        sys.executable,
        "-m",
        "stockpot.cli",
        "run",
        str(recipe),
        "--store",
        str(store),
        "--runs",
        str(runs),
    ]


def session_processes(sid):
    alive = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == sid and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess, PermissionError):
            continue
    return alive


def exact_digests(store):
    found = {}
    for manifest in Path(store).glob("objects/*/*/manifest.json"):
        stage = manifest.parent.parent.name
        if stage in EXACT:
            found[stage, manifest.parent.name] = json.loads(manifest.read_text())["digest"]
    return found


def published(store):
    """Attempt that stands for each shard of artifacts in work: (key, shard) -> attempt."""
    entries = Path(store).glob("work/*/shards/*.json")
    return {
        (p.parent.parent.name, p.stem): json.loads(p.read_text())["attempt"]
        for p in entries
        if p.stem != "_finish"
    }


def committed_attempts(store):
    """The same of committed artifacts, as their manifests tell."""
    manifests = [json.loads(p.read_text()) for p in Path(store).glob("objects/*/*/manifest.json")]
    return {
        (m["key"], shard): entry["attempt"]
        for m in manifests
        for shard, entry in m["shards"].items()
    }


def test_twenty_kills(tmp_path):
    recipe = write_recipe(
        tmp_path,
        nodes=20_000,
        degree=12,
        features=64,
        hidden=64,
        epochs=12,
        ingredients=3,
        outputs=512,
    )
    start = time.monotonic()
    subprocess.run(
        command(recipe, tmp_path / "calm", tmp_path / "runs_calm"),
        check=True,
        capture_output=True,
        timeout=600,
    )
    calm_s = time.monotonic() - start
    store, runs = tmp_path / "store", tmp_path / "runs"
    rng = random.Random(0)
    kills, seen = 0, {}
    while kills < 20:
        with open(tmp_path / "log", "ab") as log:
            driver = subprocess.Popen(
                command(recipe, store, runs), stdout=log, stderr=log, start_new_session=True
            )
            moment = rng.uniform(0.5, max(6.0, calm_s / 3))
            try:
                code = driver.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
                kills += 1
            else:
                assert code == 0, (tmp_path / "log").read_text()[-2000:]
                # It finished early: start over with an empty store, so that all twenty kills hit
                # work.
                store, seen = tmp_path / f"store{kills}", {}
        deadline = time.monotonic() + 20
        while (left := session_processes(driver.pid)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, f"orphans after kill {kills}: {[p.cmdline() for p in left]}"
        seen |= published(store) | committed_attempts(store)
        for manifest in store.glob("objects/*/*/manifest.json"):
            json.loads(manifest.read_text())
        print(
            f"kill {kills} after {moment:.1f} s: {len(published(store))} published shards wait in "
            f"work"
        )
    subprocess.run(command(recipe, store, runs), check=True, capture_output=True, timeout=600)
    calm, stormy = exact_digests(tmp_path / "calm"), exact_digests(store)
    # Packs are keyed by the recorded partition, and METIS repeats itself on one machine.
    assert stormy == calm
    assert not list(store.glob("work/*/shards/*.json"))
    stand = committed_attempts(store)
    assert seen
    # A shard that was published or committed before a kill was not computed again after it.
    assert {shard: stand.get(shard) for shard in seen} == seen


def test_a_rank_killed_twice_leaves_the_weights_as_they_would_have_been(tmp_path):
    options = {"features": 32, "hidden": 32, "epochs": 150, "ingredients": 1, "outputs": 256}
    recipe = write_recipe(tmp_path, nodes=4_000, degree=12, **options)

    def ranks(store):
        return [
            *command(recipe, tmp_path / store, tmp_path / f"runs_{store}"),
            "train",
            "--ranks",
            "2",
        ]

    def checkpoints():
        return {
            p.stat().st_mtime_ns
            for p in (tmp_path / "store").glob("work/*/scratch/**/checkpoint.safetensors")
        }

    subprocess.run(ranks("calm"), check=True, capture_output=True, timeout=600)
    for _turn in range(2):
        before, log = checkpoints(), tmp_path / "log"
        with (
            open(log, "w") as said,
            subprocess.Popen(ranks("store"), stderr=said, stdout=said) as driver,
        ):
            deadline = time.monotonic() + 300
            while checkpoints() <= before:
                assert driver.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            family = psutil.Process(driver.pid).children(recursive=True)
            (member,) = [
                p for p in family if "stockpot.stages.processes.rank_process" in p.cmdline()
            ]
            member.kill()
            assert driver.wait(120) == 1
        assert "rank 1: killed by SIGKILL; fix: run the same command again" in log.read_text()
    subprocess.run(ranks("store"), check=True, capture_output=True, timeout=600)
    histories = [
        next((tmp_path / s).glob("objects/train/*/history.json")).read_text()
        for s in ("calm", "store")
    ]
    assert histories[0] == histories[1]
    weights = [
        load_file(next((tmp_path / s).glob("objects/train/*/model.safetensors")))
        for s in ("calm", "store")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
