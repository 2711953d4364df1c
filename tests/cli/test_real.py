"""The whole main line on a tiny graph, through the command line and real worker processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graphs import write_recipe

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torch_geometric", "numba", "dask", "distributed", "scipy")


def stockpot(folder, *words, flags=()):
    command = [sys.executable, *flags, "-m", "stockpot.cli", *words]
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def imported(folder, *words):
    """Top-level packages a command imports."""
    done = stockpot(folder, *words, flags=("-X", "importtime"))
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in done.stderr.splitlines()
        if "|" in line
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    write_recipe(folder)
    done = stockpot(folder, "run", "tiny.toml")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "first.txt").write_text(done.stdout)
    return folder


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "new.toml"], ["status", "new.toml"], ["recipe", "--defaults"]]
)
def test_nothing_heavy_is_imported_to_answer(tmp_path, words):
    write_recipe(tmp_path, name="new")
    if words[0] == "--help":
        done = stockpot(tmp_path, "--help", flags=("-X", "importtime"))
        names = {
            line.rsplit("|", 1)[1].strip().split(".")[0]
            for line in done.stderr.splitlines()
            if "|" in line
        }
        assert not names & set(HEAVY)
        return
    assert not imported(tmp_path, *words) & set(HEAVY)


def test_a_cached_run_starts_no_workers(place):
    assert not imported(place, "run", "tiny.toml") & set(HEAVY)


def test_the_result(place):
    text = (place / "first.txt").read_text()
    for word in (
        "single model 0 (seed 0)",
        "single model 1 (seed 1)",
        "uniform",
        "greedy",
        "a ceiling",
        "full-graph",
    ):
        assert word in text
    summary = json.loads((place / "runs/tiny/summary.json").read_text())
    dataset = summary["dataset"]
    assert dataset["num_nodes"] == 600
    assert sum(dataset["splits"].values()) == 600
    assert summary["stages"]["quantize"]["codec"] == "fp32"
    assert summary["stages"]["influence"]["splits"]["train"]["edges"] > 0
    for single in summary["train"]["ingredients"]:
        assert single["valid_accuracy"] > 0.5
        assert single["test_accuracy"] > 0.5
        assert single["seconds_per_epoch"] > 0
    for method in ("best", "uniform", "greedy"):
        figures = dict(summary["soup"]["methods"][method])
        assert figures.pop("same_as") in (
            None,
            "ingredient:0",
            "ingredient:1",
            "best",
            "uniform",
            "greedy",
        )
        assert all(value is not None for value in figures.values()), method
    chosen = summary["soup"]["methods"][summary["soup"]["chosen"]]
    assert summary["infer"]["test_accuracy"] == chosen["test_accuracy"]
    assert summary["infer"]["full_graph_test_accuracy"] > 0.5
    page = (place / "runs/tiny/report.html").read_text()
    for word in (
        "training loss (nats)",
        "validation accuracy (%)",
        "records by number of edges",
        "edge cut",
        "numba",
    ):
        assert word in page
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) <= {"dask-report.html"}
    for split, figures in summary["stages"]["pack"]["splits"].items():
        # Two charts, nodes and edges; where one is missing, all its records are alike.
        records = re.findall(
            rf"<title>{split}: ([0-9]+) records of [0-9,]+ to [0-9,]+</title>", page
        )
        assert sum(int(n) for n in records) in {figures["records"] * charts for charts in range(4)}


def test_a_cached_run_makes_the_same_remarks(place):
    printed = re.findall(r"^remark: (.*)$", (place / "first.txt").read_text(), re.MULTILINE)
    again = json.loads(stockpot(place, "run", "tiny.toml", "--json").stdout)
    assert again["remarks"] == printed
    assert all("; fix: " in line for line in printed)


def test_peak_memory_stays_below_its_projection(place):
    plan = json.loads(stockpot(place, "plan", "tiny.toml", "--json").stdout)
    status = json.loads(stockpot(place, "status", "tiny.toml", "--json").stdout)
    peaks = {node["node"]: node["peak_bytes"] for node in status["nodes"]}
    over = {
        n["node"]: (peaks[n["node"]], n["peak_bytes"])
        for n in plan["nodes"]
        if peaks[n["node"]] > n["peak_bytes"]
    }
    # On a graph this small a task's memory is its libraries', which a worker loads once.
    assert {name: pair for name, pair in over.items() if pair[0] > 400_000_000} == {}


def test_inspect_a_record(place):
    done = stockpot(place, "inspect", "tiny.toml", "--split", "valid", "--record", "1", "--json")
    assert done.returncode == 0, done.stderr
    d = json.loads(done.stdout)
    assert (d["artifact"], d["split"], d["record"]) == ("pack:valid", "valid", 1)
    facts = json.loads(stockpot(place, "inspect", "tiny.toml", "pack:valid", "--json").stdout)[
        "facts"
    ]
    assert d["records"] == facts["records"]
    assert sum(d["labels"].values()) + d["unlabelled"] == d["num_outputs"] == d["hops"][0]["nodes"]
    assert sum(hop["edges"] for hop in d["hops"]) == d["num_edges"]
    by_folder = Path(d["file"]).parent
    assert (
        json.loads(stockpot(place, "inspect", str(by_folder), "--record", "1", "--json").stdout)[
            "hops"
        ]
        == d["hops"]
    )
    last = facts["records"] - 1
    bad = stockpot(place, "inspect", "tiny.toml", "--split", "valid", "--record", "99")
    assert bad.returncode == 2
    fix = f"fix: stockpot inspect tiny.toml --split valid --record {last}"
    assert (
        bad.stderr
        == f"stockpot: error: inspect: pack:valid: expected --record in 0..{last}, found 99; "
        f"{fix}\n"
    )
    gathers = {
        "numba",
        "scipy",
    }  # codes of varying width that the record reads by node are gathered by a kernel
    assert not imported(place, "inspect", "tiny.toml") & (set(HEAVY) - gathers)


def test_other_nodes_to_infer(place):
    (place / "ids.txt").write_text("5\n3\n599\n")
    done = stockpot(place, "run", "tiny.toml", "--set", "infer.split=ids.txt", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["infer"]["num_outputs"] == 3
    everything = stockpot(place, "run", "tiny.toml", "--set", "infer.split=all", "--json")
    infer = json.loads(everything.stdout)["infer"]
    assert infer["num_outputs"] == 600
    assert infer["test_accuracy"] is None
    assert infer["accuracy"] > 0.5
