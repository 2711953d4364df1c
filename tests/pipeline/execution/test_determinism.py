"""Exact stages have the same digests with 1, 2 and 8 worker processes, and in two runs."""

import json
import subprocess
import sys

import pytest

from tests.graphs import write_recipe

EXACT = {"ingest", "split", "sizing", "influence", "order", "quantize", "pack"}


def digests(folder, store, workers):
    command = [
        sys.executable,
        "-m",
        "stockpot.cli",
        "run",
        "tiny.toml",
        "pack",
        "order",
        "--store",
        store,
        "--runs",
        f"runs_{store}",
    ]
    subprocess.run(
        [*command, "--set", f"resources.workers={workers}"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=300,
    )
    manifests = [
        json.loads(path.read_text()) for path in (folder / store).glob("objects/*/*/manifest.json")
    ]
    return {(m["stage"], m["key"]): m["digest"] for m in manifests if m["stage"] in EXACT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("determinism")
    # More than one PPR span, so that several shards of a stage really run side by side.
    write_recipe(folder, nodes=40_000, degree=4, features=8, outputs=1000)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    return digests(folder, "one", 1)


@pytest.mark.parametrize(("store", "workers"), [("two", 2), ("eight", 8)])
def test_any_number_of_workers_gives_the_same_bytes(folder, alone, store, workers):
    found = digests(folder, store, workers)
    assert {stage for stage, _ in found} == EXACT
    assert found == alone
