"""A new stage is one folder and one line: recipe key, plan row, error, summary, report, remark and
inspect follow."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graphs import write_npz

ROOT = Path(__file__).parents[2]
TOY = '''"""Counts how many nodes have each in-degree."""

from dataclasses import dataclass

import numpy as np

from stockpot.stages.built import Block
from stockpot.stages.errors import BadInput
from stockpot.stages.guess import Guess
from stockpot.stages.node import node
from stockpot.stages.recipe_key import key
from stockpot.stages.stage import Cost, Planning, Reporting, Stage
from stockpot.stages.value_range import Range


@dataclass(frozen=True)
class Toy:
    bins: int = key(4, "bins of the histogram of degrees", Range(1, 100))
    even: bool = key(default=False, about="bins must be even")


@dataclass(frozen=True)
class Params:
    bins: int


def nodes(values, made):
    if values["toy.even"] and values["toy.bins"] % 2:
        found = values["toy.bins"]
        raise BadInput(f"toy.bins: expected an even number, found {found}", fix="--set toy.bins=4")
    yield node("toy", {"graph": "ingest"})


def run(params, inputs, shard, out):
    degrees = np.diff(inputs["graph"].array("indptr"))
    found = np.bincount(degrees.clip(max=params.bins - 1), minlength=params.bins)
    out.array("histogram", found)
    return {"most": int(found.max())}


def summary(view):
    most = view.facts("toy").get("most")
    return {"stages": {"toy": {"most": most}}} if "toy" in view.built else {}


def report(summary, view):
    if "toy" in view.read:
        yield Block("Degrees", f"<p>{view.read['toy']} nodes were counted.</p>")


def guess(known):
    return Guess({"most": known.facts["graph"]["num_nodes"]})


def remarks(view):
    return ["all degrees are alike; fix: another graph"] if view.facts("toy").get("most") else []


STAGE = Stage(
    name="toy",
    version=1,
    exact=True,
    params=Params,
    roles=("graph",),
    reads=("toy.bins",),
    resolve=lambda recipe, facts: Params(int(recipe["toy.bins"])),
    run=run,
    cost=lambda params, facts: Cost(8 * facts["graph"]["num_nodes"], 8 * params.bins, 1 << 20),
    planning=Planning(nodes, {"toy": Toy}, guess),
    reporting=Reporting(
        summary,
        lambda reader, node: int(reader.array("histogram").sum()),
        report,
        remarks,
        lambda facts, judged: [f"most nodes of one degree: {facts['most']}"],
    ),
)
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The package with one folder more, and one line."""
    place = tmp_path_factory.mktemp("house")
    package, ignore = place / "site/stockpot", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", package, ignore=ignore)
    shutil.copytree(ROOT / "stages", package / "stages", ignore=ignore)
    (package / "stages/toy").mkdir()
    (package / "stages/toy/__init__.py").write_text(TOY)
    registry = package / "planning/registry.py"
    line = '        "partition",\n'
    assert registry.read_text().count(line) == 1
    registry.write_text(registry.read_text().replace(line, line + '        "toy",\n'))
    source = write_npz(place / "graph.npz", nodes=200)
    (place / "mine.toml").write_text(f'[dataset]\nsource = "npz:{source}"\n\n[toy]\nbins = 6\n')
    return place


def typed(house, *words, code=0):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from stockpot.cli import main; sys.exit(main())",
            *words,
        ],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_its_recipe_key(house):
    assert (
        "bins = 4                         # bins of the histogram of degrees; from 1 to 100"
        in typed(house, "recipe", "--defaults")
    )
    assert "toy.bins: expected an integer from 1 to 100, found 0" in typed(
        house, "plan", "mine.toml", "--set", "toy.bins=0", code=2
    )
    assert "unknown key toy.bin, nearest is toy.bins" in typed(
        house, "plan", "mine.toml", "--set", "toy.bin=3", code=2
    )


def test_its_error(house):
    said = typed(house, "run", "mine.toml", "--set", "toy.even=true", "--set", "toy.bins=3", code=2)
    assert "toy.bins: expected an even number, found 3; fix: --set toy.bins=4" in said


def test_plan_run_and_all_that_is_said_of_it(house):
    planned = {
        row["node"]: row for row in json.loads(typed(house, "plan", "mine.toml", "--json"))["nodes"]
    }
    assert (planned["toy"]["state"], planned["toy"]["written_bytes"]) == ("after", 48)
    typed(house, "run", "mine.toml", "toy", "ingest")
    said = typed(house, "report", "mine.toml")
    summary = json.loads((house / "runs/mine/summary.json").read_text())
    most = summary["stages"]["toy"]["most"]
    assert 0 < most <= 200
    assert summary["remarks"] == ["all degrees are alike; fix: another graph"]
    page = (house / "runs/mine/report.html").read_text()
    assert "<h2>Degrees</h2>\n<p>200 nodes were counted.</p>" in page
    assert "toy.bins" in page  # among the keys that differ
    assert f"most nodes of one degree: {most}" in typed(house, "inspect", "mine.toml", "toy")
    assert "cached" in typed(house, "status", "mine.toml")
    assert said
